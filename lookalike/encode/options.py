"""The command-line options of an encoder, and the typed settings that they become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from lookalike.encode.image_limits import MAX_PIXELS, PIXEL_CEILING
from lookalike.schema.settings import LOCAL_ENGINES, encoder_options, setting_option

if TYPE_CHECKING:
    from lookalike.encode.backends.select import EngineName

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Where and how an encoder runs over many images; see load_engine."""

    device: str = "auto"
    dtype: str = "auto"
    engine: "EngineName" = "auto"
    batch_size: int | None = None
    """Images in a batch; None is measured on a GPU, and a fixed number elsewhere."""

    num_workers: int | None = None
    """Threads that read and decode; None is one for each core."""

    decode_processes: int | None = 0
    """Processes that decode for these threads; None is as many as are useful on the device."""

    max_pixels: int = MAX_PIXELS
    """The largest image, and how many pixels are decoded at the same time."""

    @classmethod
    def from_click(cls, options: Mapping[str, Any]) -> Self:
        """Take the settings of an encoder from a command's options; options that the command lacks keep their defaults.

        For `--engine ray` the engine is auto: each worker measures for itself.
        """
        return cls(
            device=options["device"],
            dtype=options["dtype"],
            engine="auto" if options["engine"] == "ray" else options["engine"],
            batch_size=options.get("batch_size"),
            num_workers=options.get("num_workers"),
            decode_processes=options.get("decode_processes", 0),
            max_pixels=options.get("max_pixels") or MAX_PIXELS,
        )


def check_encoder_option(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check the value of --encoder before anything is opened. Raises EncoderUnavailable for a mistyped name."""
    # With --engine ray, a directory with a full path may be on other machines only.
    if value is not None and not value.startswith("/"):
        from lookalike.encode.registry import check_encoder_name

        check_encoder_name(value)
    return value


def batch_options(command: Command, engines: tuple[str, ...] = LOCAL_ENGINES) -> Command:
    """Add the options of a command that encodes batches.

    They are --batch-size, --max-pixels, --device, --dtype and --engine.
    """
    pixels = setting_option(
        "--max-pixels", type=click.IntRange(1, PIXEL_CEILING), help="Larger images are rejected.  [default: 64000000]"
    )
    batch = setting_option(
        "--batch-size", type=click.IntRange(1, 4096), help="Images in a batch.  [default: 16; measured once on a GPU]"
    )
    return batch(pixels(encoder_options(command, engines)))


def engine_options(command: Command, engines: tuple[str, ...] = LOCAL_ENGINES) -> Command:
    """Add the options of a command that reads, decodes and encodes many images.

    They are --num-workers, --decode-processes and those of `batch_options`.
    """
    processes = setting_option(
        "--decode-processes",
        type=click.IntRange(0, 256),
        help="Processes that decode for the threads.  "
        "[default: none; with a GPU and more than 4 threads, one per thread, at most 16]",
    )
    workers = setting_option(
        "--num-workers", type=click.IntRange(1, 256), help="Threads that read and decode.  [default: the cores]"
    )
    return batch_options(workers(processes(command)), engines)

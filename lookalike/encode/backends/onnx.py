"""Models that ONNX Runtime runs: torch exports them once, and is not needed from then on."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from lookalike.encode.encoder import BaseEncoder, TextEncoder
from lookalike.encode.preprocess import Pixels, Prepare
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.product import Vectors

# ONNX Runtime would send usage data to its maker; it reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder

_LOG_ERRORS_ONLY = 3


class CpuShare(NamedTuple):
    """What one batch gets of the processor: threads, and chunks so small that its caches hold them."""

    threads: int
    chunk_size: int


class OnnxEncoder(BaseEncoder):
    """An encoder whose model ONNX Runtime runs on the CPU, a batch in chunks.

    The activations of 16 images do not fit into the caches of a processor: a small model is a third faster with 2 at
    once, and needs half the memory. Raises EncoderUnavailable for a file that is not a model.
    """

    def __init__(self, model_file: Path, prepare: Prepare, fingerprint: Fingerprint, share: CpuShare) -> None:
        super().__init__(prepare, fingerprint)
        self.chunk_size = share.chunk_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = share.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])
        # Its errors share no ancestor but Exception.
        except Exception as error:
            raise EncoderUnavailable(f"{model_file} cannot be used ({error}); delete it to export it again") from error

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images, stacked: (n, …) to float32 (n, dim) of unit length. From Encoder."""
        starts = range(0, len(batch), self.chunk_size)
        return np.concatenate([self._forward(batch[start : start + self.chunk_size]) for start in starts])

    def _forward(self, batch: Pixels) -> Vectors:
        vectors: Vectors = self._session.run(None, {"pixels": np.ascontiguousarray(batch)})[0]
        return vectors


class OnnxTextEncoder(OnnxEncoder):
    """The same for a model with a text tower. Torch runs that one; it is loaded with the first text."""

    def __init__(
        self,
        model_file: Path,
        prepare: Prepare,
        fingerprint: Fingerprint,
        share: CpuShare,
        load_text_encoder: Callable[[], TextEncoder],
    ) -> None:
        super().__init__(model_file, prepare, fingerprint, share)
        self._load_text_encoder = load_text_encoder
        self._text_encoder: TextEncoder | None = None
        self._load_lock = threading.Lock()

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length. From TextEncoder."""
        with self._load_lock:
            if self._text_encoder is None:
                self._text_encoder = self._load_text_encoder()
        return self._text_encoder.encode_texts(texts)


def export_onnx(encoder: "TorchEncoder", file: Path) -> None:
    """Write an encoder's model, from prepared images to unit vectors, as ONNX. Raises what torch raises."""
    import torch

    blank = np.stack([np.asarray(encoder.prepare(Image.new("RGB", (64, 64), "grey")))] * 2)
    # The exporter logs much, such as optional packages that are missing.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                encoder.model,
                (torch.from_numpy(blank),),
                file,
                input_names=["pixels"],
                output_names=["vectors"],
                dynamic_shapes={"pixels": {0: torch.export.Dim.DYNAMIC}},
                dynamo=True,
                # Weights in a file of their own are memory-mapped; inside the model file they would be held twice.
                external_data=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)

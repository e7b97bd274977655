"""Nothing is created before the first row is ready, and a collection without rows takes any encoder."""

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from catalogue import draw
from command import lookalike

import lookalike as api
from lookalike.schema.errors import BadSettings, BadSource, EncoderUnavailable
from lookalike.schema.milvus.driver import MilvusClient
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Versions

PIXELS = ("--encoder", "pixels")
_names = (f"new{os.getpid()}_{number}" for number in range(1_000))


class Address:
    """A collection that does not exist yet."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.folder, self.collection = folder, next(_names)
        self.uri = uri if uri.startswith("http") else str(folder / "new.db")
        self.options = ("--uri", self.uri, "--collection", self.collection)

    def is_untouched(self) -> bool:
        """Whether neither a collection nor a folder was created."""
        if not self.uri.startswith("http"):
            return not Path(self.uri).exists()
        return not [name for name in MilvusClient(self.uri).list_collections() if name.startswith(self.collection)]


@pytest.fixture
def address(uri: str, tmp_path: Path) -> Address:
    return Address(uri, tmp_path)


def wrong_columns(folder: Path) -> Path:
    (folder / "shop.csv").write_text("sku,photo\n1,a.png\n")
    return folder / "shop.csv"


def latin_1(folder: Path) -> Path:
    (folder / "shop.csv").write_bytes("product_id,image,title\n1,a.png,café\n".encode("latin-1"))
    return folder / "shop.csv"


def no_bytes(folder: Path) -> Path:
    (folder / "shop.jsonl").write_text('{"product_id": "1", "image": "missing.png"}\n')
    return folder / "shop.jsonl"


def no_images(folder: Path) -> Path:
    (folder / "photos").mkdir()
    (folder / "photos" / "1.jpg").write_text("no image")
    return folder / "photos"


@pytest.mark.parametrize("make_source", [wrong_columns, latin_1, no_bytes, no_images])
def test_a_run_that_fails_before_its_first_row_creates_nothing(
    address: Address, make_source: Callable[[Path], Path]
) -> None:
    source = make_source(address.folder)
    assert lookalike("ingest", source, *PIXELS, *address.options, cwd=address.folder).returncode in (1, 2)
    with api.connect(address.uri, collection=address.collection, encoder="pixels") as shop:
        with contextlib.suppress(BadSource):
            assert shop.ingest(source).stored == 0
        with pytest.raises(BadSettings, match="no collection"):
            shop.info()
    assert address.is_untouched()


def test_a_run_without_its_encoder_creates_nothing(address: Address) -> None:
    draw(address.folder / "photos" / "1.png", 1)
    (address.folder / "empty").mkdir()
    with (
        api.connect(address.uri, collection=address.collection, encoder=str(address.folder / "empty")) as shop,
        pytest.raises(EncoderUnavailable),
    ):
        shop.ingest(address.folder / "photos")
    assert address.is_untouched()


def test_an_import_that_fails_creates_nothing(address: Address) -> None:
    draw(address.folder / "photos" / "1.png", 1)
    with api.connect(str(address.folder / "full.db"), encoder="pixels") as full:
        full.ingest(address.folder / "photos")
        full.export(address.folder / "full.parquet")
        full.delete(where="product_id = 1")
        full.export(address.folder / "empty.parquet")
    content = (address.folder / "full.parquet").read_bytes()
    (address.folder / "broken.parquet").write_bytes(content[: len(content) // 2])
    for name in ("broken.parquet", "empty.parquet", "missing.parquet"):
        assert lookalike("import", name, *address.options, cwd=address.folder).returncode == 2
    assert address.is_untouched()


@pytest.fixture
def emptied(address: Address) -> Address:
    """A collection whose only image was deleted; its encoder is `pixels`."""
    draw(address.folder / "photos" / "1.png", 1)
    with api.connect(address.uri, collection=address.collection, encoder="pixels") as shop:
        shop.ingest(address.folder / "photos")
        shop.delete("1")
    return address


def test_an_empty_collection_takes_the_encoder_of_the_next_ingest(emptied: Address) -> None:
    photos = emptied.folder / "photos"
    with api.connect(emptied.uri, collection=emptied.collection, encoder="efficientnet-lite0") as shop:
        assert shop.info().encoder == "pixels"
        assert shop.ingest(photos, dry_run=True).new == 1
        assert shop.info().encoder == "pixels"
        assert shop.ingest(photos).new == 1
        assert (shop.info().encoder, shop.info().images) == ("efficientnet-lite0", 1)
        assert [hit.product_id for hit in shop.search(photos / "1.png")] == ["1"]
    with Versions(emptied.uri, collection=emptied.collection) as versions:
        assert len(versions.all()) == 1


def test_an_empty_collection_takes_the_encoder_of_an_import(emptied: Address) -> None:
    with api.connect(str(emptied.folder / "other.db"), encoder="efficientnet-lite0") as other:
        other.ingest(emptied.folder / "photos")
        other.export(emptied.folder / "other.parquet")
    for command in (("import", "other.parquet", "--dry-run"), ("import", "other.parquet")):
        done = lookalike(*command, *emptied.options, cwd=emptied.folder)
        assert done.returncode == 0, done.stderr
    with Store.open(emptied.uri, collection=emptied.collection) as store:
        assert (store.encoder, store.count()) == ("efficientnet-lite0", 1)


def test_an_empty_collection_keeps_its_encoder_when_none_is_given(emptied: Address) -> None:
    done = lookalike("ingest", "photos", *emptied.options, "--format", "json", cwd=emptied.folder)
    summary = json.loads(done.stdout)
    assert (summary["new"], summary["encoder"]) == (1, "pixels")


def test_an_empty_collection_keeps_its_encoder_when_the_run_fails(emptied: Address) -> None:
    (emptied.folder / "photos" / "1.png").write_text("no image")
    lookalike("ingest", "photos", "--encoder", "efficientnet-lite0", *emptied.options, cwd=emptied.folder)
    with Store.open(emptied.uri, collection=emptied.collection) as store:
        assert store.encoder == "pixels"


def test_two_runs_that_create_the_same_collection_at_once_both_succeed(address: Address) -> None:
    def ingest(number: int) -> Any:
        with api.connect(address.uri, collection=address.collection, encoder="pixels") as shop:
            return shop.ingest(address.folder / str(number)).stored

    for n in range(40):
        draw(address.folder / str(n % 2) / f"{n}.png", n)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ingest, range(2))) == [20, 20]
    with Store.open(address.uri, collection=address.collection) as store:
        assert store.count() == 40

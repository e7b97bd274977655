"""The store behaves the same on Milvus Lite and on a server; each test is about a difference or defect of one."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import DIM, PLAIN, NewStore, a_row, unit

from lookalike.schema.errors import BadRow, BadSettings, EncoderMismatch, StoreUnavailable
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.driver import MilvusClient
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Versions
from lookalike.schema.product import ImageRow

FIELDS = ("product_id", "image", "metadata")


def keys(store: Store, where: str = "") -> set[str]:
    return {row["image_id"] for row in store.rows(where=where, fields=["product_id"])}


@pytest.fixture(scope="module")
def shared_store(new_store: NewStore) -> Store:
    return new_store()


@pytest.fixture
def store(shared_store: Store) -> Iterator[Store]:
    """An empty collection, shared by many tests: a server takes two seconds to create one."""
    yield shared_store
    shared_store.delete(sorted(keys(shared_store)))


def test_a_store_reads_its_own_writes(store: Store) -> None:
    rows = [a_row(f"{n}.jpg", f"p{n % 3}", unit(1, n)) for n in range(50)]

    assert store.upsert(rows) == 50

    assert store.count() == 50
    assert store.count('product_id == "p0"') == 17
    assert keys(store) == {row.image_id for row in rows}
    nearest = store.search(rows[7].embedding, 1, fields=FIELDS)[0]
    assert nearest["image"] == "/photos/7.jpg"
    assert nearest["score"] == pytest.approx(1, abs=1e-5)


def test_upsert_replaces_the_whole_row(store: Store) -> None:
    store.upsert([a_row("a.jpg", metadata={"price": 5, "old": True})])

    store.upsert([a_row("a.jpg", metadata={"price": 6})])

    assert [row["metadata"] for row in store.rows(fields=["metadata"])] == [{"price": 6}]


def test_the_last_row_of_a_key_in_one_batch_wins(store: Store) -> None:
    assert store.upsert([a_row("a.jpg", metadata={"n": n}) for n in range(3)]) == 1

    assert [row["metadata"] for row in store.rows(fields=["metadata"])] == [{"n": 2}]


@pytest.mark.parametrize(
    "vector",
    [
        unit(1)[:-1],
        np.append(unit(1), np.float32(0)),
        unit(1).astype(np.float64),
        np.full(DIM, np.nan, dtype=np.float32),
        np.full(DIM, np.inf, dtype=np.float32),
    ],
    ids=["short", "long", "float64", "nan", "inf"],
)
def test_an_invalid_vector_is_refused_with_its_whole_batch(store: Store, vector: np.ndarray) -> None:
    with pytest.raises(BadRow, match=r"bad\.jpg.*vector"):
        store.upsert([a_row("good.jpg"), dataclasses.replace(a_row("bad.jpg"), embedding=vector)])

    assert store.count() == 0


@pytest.mark.parametrize("name", ["it's", 'q"uote', "back\\slash", "new\nline", "é日本😀", "a' or 1==1 or '", "%_"])
def test_ids_may_have_any_characters(store: Store, name: str) -> None:
    store.upsert([a_row(f"{name}.jpg", name), a_row("other.jpg", "other")])

    assert store.count(column_in("product_id", [name])) == 1
    store.delete([row["image_id"] for row in store.rows(where=column_in("product_id", [name]), fields=["product_id"])])
    assert [row["product_id"] for row in store.rows(fields=["product_id"])] == ["other"]


def test_ids_that_are_not_utf8_or_too_long_are_refused(store: Store) -> None:
    with pytest.raises(BadRow, match="UTF-8"):
        store.upsert([a_row("a.jpg", "\udcff")])
    with pytest.raises(BadRow, match="1025 bytes; 1024 is the limit"):
        store.upsert([a_row("a.jpg", "p" * 1025)])
    store.upsert([a_row("a.jpg", "p" * 1024)])


@pytest.mark.slow
def test_batches_and_results_beyond_the_message_limit_are_split(new_store: NewStore) -> None:
    store = new_store()
    rows = [a_row(f"{n}.jpg", metadata={"text": "x" * 60_000}) for n in range(1_200)]  # 72 MB; a server takes 64

    assert store.upsert(rows) == 1_200
    store.flush()

    image_ids = {row.image_id for row in rows}
    results = (
        store.rows(fields=["metadata"]),
        store.get(sorted(image_ids), ["metadata", "embedding"]),
        store.search(rows[0].embedding, 1_200, fields=["metadata"]),
    )
    for result in map(list, results):
        assert {row["image_id"] for row in result} == image_ids
        assert all(row["metadata"] == rows[0].metadata for row in result)


def test_rows_beyond_the_window_of_one_query_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert([a_row(f"{n}.jpg") for n in range(500)])
    monkeypatch.setattr(store, "window", 100)

    image_ids = [row["image_id"] for row in store.rows(fields=["product_id"])]

    assert len(image_ids) == len(set(image_ids)) == 500


def test_a_collection_refuses_another_encoder(uri: str, new_store: NewStore) -> None:
    filled = new_store()
    filled.upsert([a_row("1.jpg")])
    name = filled.name
    Store.create(uri, dataclasses.replace(PLAIN, encoder="same weights, other name"), collection=name).close()

    with pytest.raises(EncoderMismatch, match=r"'test'.*'other'.*weights none / abc.*--collection"):
        Store.create(uri, dataclasses.replace(PLAIN, encoder="other", weights="abc"), collection=name)
    with Store.open(uri, collection=name) as store:
        assert store.fingerprint == PLAIN


def test_an_empty_collection_takes_any_encoder(uri: str, new_store: NewStore) -> None:
    empty = new_store()
    empty.upsert([a_row("1.jpg")])
    empty.delete([a_row("1.jpg").image_id])
    other = dataclasses.replace(PLAIN, encoder="other", weights="abc", dim=4)

    with Store.create(uri, other, collection=empty.name) as store:
        assert (store.fingerprint, store.count()) == (other, 0)
        with Versions(uri, collection=empty.name) as versions:
            assert [version.name for version in versions.all()] == [store.version], "the empty version is dropped"
    with Store.open(uri, collection=empty.name) as store:
        assert store.fingerprint == other


def test_the_error_for_a_missing_collection_names_the_existing_ones(
    uri: str, new_store: NewStore, tmp_path: Path
) -> None:
    existing = new_store().name
    with pytest.raises(BadSettings, match=rf"no collection 'nothing'.*{existing}.*lookalike ingest"):
        Store.open(uri, collection="nothing")
    with pytest.raises(BadSettings, match="no collection"):
        Store.open(str(tmp_path / "nothing.db"))
    assert not (tmp_path / "nothing.db").exists()


def test_concurrent_creators_of_a_collection_share_it(uri: str) -> None:
    def create(n: int) -> Store:
        store = Store.create(uri, PLAIN, collection="together")
        store.upsert([a_row(f"{n}.jpg")])
        return store

    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(create, range(3)))

    assert [store.count() for store in stores] == [3, 3, 3]
    for store in stores:
        store.close()


def test_a_collection_that_lookalike_did_not_create_is_left_unchanged(uri: str) -> None:
    client = MilvusClient(uri)
    client.create_collection("foreign", dimension=4)
    client.create_collection("t__v1", dimension=4)

    with pytest.raises(BadSettings, match="was not created by this version of lookalike"):
        Store.create(uri, PLAIN, collection="foreign")
    Store.create(uri, PLAIN, collection="t").close()

    assert {"foreign", "t__v1"} <= set(MilvusClient(uri).list_collections())


def test_a_failed_open_releases_the_folder_for_other_processes(tmp_path: Path) -> None:
    uri = tmp_path / "x.db"
    with Store.create(str(uri), PLAIN, collection="t") as store:
        store.upsert([a_row("1.jpg")])
    with pytest.raises(EncoderMismatch):
        Store.create(str(uri), dataclasses.replace(PLAIN, dim=9), collection="t")
    assert script('Store.open(sys.argv[1], collection="t")', uri).stderr == ""


@pytest.mark.parametrize("name", ["", "1abc", "a-b", "a b", "é", "a" * 201, "../x"])
def test_invalid_collection_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSettings, match="is not a collection name"):
        Store.create(str(tmp_path / "x.db"), PLAIN, collection=name)


def test_the_error_names_an_unreachable_server_without_retries() -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:9 does not answer.*Is it running"):
        Store.open("http://127.0.0.1:9")
    assert time.monotonic() - started < 30


# Milvus Lite only. One process at a time can open its folder, so these tests start and kill other processes.


def script(body: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, with the modules of the tests at hand."""
    imports = "import os, threading\nfrom conftest import PLAIN, a_row, unit\n"
    imports += "from lookalike.schema.milvus.store import Store\n"
    paths = f"import sys; sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parents[2])!r}]\n"
    command = [sys.executable, "-c", paths + imports + body, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def stored(uri: Path) -> set[str]:
    with Store.open(str(uri), collection="t") as store:
        return {str(row["product_id"]) for row in store.rows(fields=["product_id"])}


def test_rows_written_by_several_threads_survive_a_killed_process(tmp_path: Path) -> None:
    uri = tmp_path / "x.db"
    killed = script(
        """
store = Store.create(sys.argv[1], PLAIN, collection="t")
def write(thread):
    for n in range(60):
        store.upsert([a_row(f"{thread}-{n}-{m}.jpg", f"{thread}-{n}-{m}") for m in range(10)])
threads = [threading.Thread(target=write, args=(t,)) for t in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
os._exit(9)
""",
        uri,
    )
    assert killed.returncode == 9, killed.stderr
    assert stored(uri) == {f"{t}-{n}-{m}" for t in range(4) for n in range(60) for m in range(10)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk: sudo make test")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


FILL = """
store = Store.create(sys.argv[1], PLAIN, collection="t")
store.connection.reserve = int(sys.argv[2])
try:
    for n in range(1_000):
        store.upsert([a_row(f"{n}-{m}.jpg", f"{n}-{m}", metadata={"x": os.urandom(1_000).hex()}) for m in range(100)])
        print(n, flush=True)
finally:
    store.close()
"""


@pytest.mark.parametrize("reserve", [4 * 2**20, 0], ids=["detected before a write", "during a write"])
def test_a_full_disk_loses_no_acknowledged_row(small_disk: Path, reserve: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small memtables are flushed often, so that the disk fills up in every kind of write.
    monkeypatch.setenv("MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES", str(2**20))
    uri = small_disk / "x.db"
    # With too little space none would be created.
    Store.create(str(uri), PLAIN, collection="t").close()
    resize(small_disk, "12m")
    full = script(FILL, uri, reserve)
    acknowledged = {f"{n}-{m}" for n in map(int, full.stdout.split()) for m in range(100)}

    assert full.returncode == 1
    assert "DiskFull" in full.stderr
    assert "free some space and run the same command again" in full.stderr
    assert len(acknowledged) > 500
    resize(small_disk, "512m")
    assert acknowledged <= stored(uri)


def test_the_error_says_which_process_has_the_folder_open(tmp_path: Path) -> None:
    uri = tmp_path / "x.db"
    with Store.create(str(uri), PLAIN, collection="t"):
        second = script('Store.open(sys.argv[1], collection="t")', uri)
        assert "StoreUnreachable" in second.stderr
        # pytest is no command of ours.
        assert re.search(rf"{uri} is open in process {os.getpid()} \(`python \S+`, since \d\d:\d\d\)", second.stderr)
        assert "A Milvus server takes several processes at once: set MILVUS_URI" in second.stderr
    assert script('Store.open(sys.argv[1], collection="t").close()', uri).returncode == 0


def test_a_reopened_store_has_all_rows(tmp_path: Path) -> None:
    rows: list[ImageRow] = [a_row(f"{n}.jpg", f"p{n}") for n in range(20)]
    with Store.create(str(tmp_path / "x.db"), PLAIN, collection="t") as store:
        store.upsert(rows)
        store.flush()
    assert stored(tmp_path / "x.db") == {f"p{n}" for n in range(20)}


def test_a_declared_column_is_indexed_or_the_reason_is_returned(new_store: NewStore) -> None:
    store = new_store()
    reasons = store.index({"price": "float", "tags": "list"})
    assert set(reasons) == {"price"}
    assert reasons["price"] is None or "JSON" in reasons["price"]
    store.upsert([a_row("1.jpg", metadata={"price": 3.5})])
    assert store.count('metadata["price"] > 3') == 1

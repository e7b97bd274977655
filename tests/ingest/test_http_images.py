"""An image over HTTP arrives whole, however it is served, for ingest and the service; or the report says why not."""

import io
import itertools
import json
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from command import lookalike, process_command, process_environment
from conftest import a_row, bring
from fsspec.implementations.memory import MemoryFileSystem
from image_server import WRITTEN, ImageServer, image_server, jpeg
from loopback import loopback_only
from pyarrow import parquet
from serving import client, listening, service_for, until

from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.fetch.address import allow_any
from lookalike.encode.fetch.errors import FetchFailed, IncompleteBody, TransientFailure, describe_progress
from lookalike.encode.fetch.fetcher import Fetcher
from lookalike.encode.fetch.limits import Limits
from lookalike.encode.fetch.network import AddressPolicy
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.registry import load_encoder
from lookalike.ingest.admin.parquet import check_file, export_rows, import_rows
from lookalike.ingest.admin.reindex import reindex
from lookalike.ingest.pipeline.stages import PipelineLimits
from lookalike.ingest.reports.report import Report, Summary
from lookalike.ingest.sources.files import ImageReader, image_reader
from lookalike.ingest.threshold import Threshold
from lookalike.schema.collection import COLUMNS, FINGERPRINT_PROPERTY, LAYOUT_PROPERTY, MAX_BYTES
from lookalike.schema.errors import BadImage
from lookalike.schema.milvus.driver import DataType, MilvusClient
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Versions
from lookalike.schema.product import FileState, ImageRow, ProductImage
from lookalike.serve.runtime.image_fetch import RequestFetcher

PIXELS = load_encoder("pixels")
HERE = AddressPolicy(lambda address: address.is_loopback)
MANY = 64 * 2**20

SIZES = (10_000, 500_000, 3_500_000, 30_000_000)
TRANSFERS = ("length", "chunked:8192", "chunked:1000000", "close", "gzip")
# Chunks of one byte cost both ends some microseconds a byte: with 3.5 and 30 MB they would take minutes.
BY_BYTE = [{"size": 10_000, "transfer": "chunked:1"}]
SLOW = {"size": 500_000, "transfer": "chunked:1"}
BY_TRANSFER = [{"size": size, "transfer": transfer} for size, transfer in itertools.product(SIZES, TRANSFERS)]
BY_SERVER = [
    {"size": 10_000, "transfer": transfer, "validator": validator, "head": head, "ranges": ranges, **redirect}
    for transfer, validator, head, ranges, redirect in itertools.product(
        ("length", "chunked:8192"),
        ("etag", "date", "none"),
        ("ok", "405", "lie"),
        ("bytes", "none"),
        ({}, {"redirect": 302}),
    )
]
QUICK = [*BY_BYTE, *BY_TRANSFER, *BY_SERVER]

Options = dict[str, object]


def named(options: Options) -> str:
    return " ".join(map(str, options.values()))


CASES = [
    *(pytest.param(case, id=named(case)) for case in QUICK),
    pytest.param(SLOW, id=named(SLOW), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", autouse=True)
def dialled() -> Iterator[list[str]]:
    """What was refused because it is not this machine."""
    with loopback_only() as refused:
        yield refused


@pytest.fixture(scope="module")
def reader() -> ImageReader:
    """One that may go to this machine."""
    return image_reader(allow_private=True)


@pytest.fixture
def site() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(str(tmp_path / "web.db"), PIXELS.fingerprint) as store:
        yield store


def images(*urls: str) -> list[ProductImage]:
    """Images of a source: the key says which one, not the URL."""
    return [ProductImage.named("web", f"p{n}", str(n), url, {}) for n, url in enumerate(urls)]


def ingested(store: Store, reader: ImageReader, *urls: str) -> Report:
    return bring(images(*urls), PIXELS, store, read=reader.read_changed)


def run(store: Store, reader: ImageReader, *urls: str) -> Summary:
    return ingested(store, reader, *urls).summary()


def rejected(store: Store, reader: ImageReader, url: str) -> str:
    """Why the image at a URL is rejected."""
    [rejection] = ingested(store, reader, url).first_rejections
    return rejection.reason


def curl(url: str) -> bytes:
    if not shutil.which("curl"):
        pytest.skip("no curl to compare with")
    done = subprocess.run(["curl", "-sSfL", "--compressed", "--noproxy", "*", url], check=True, capture_output=True)
    return done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory, reader: ImageReader, server: ImageServer
) -> Callable[[str], str | None]:
    """Gives the hash that is stored of an image, by URL; all quick ones are ingested in one run."""
    path, hashes = tmp_path_factory.mktemp("table") / "web.db", dict[str, str]()

    def ingest(*urls: str) -> None:
        with Store.create(str(path), PIXELS.fingerprint) as store:
            run(store, reader, *urls)
            hashes.update((row["image"], row["image_hash"]) for row in store.rows(fields=["image", "image_hash"]))

    def stored_hash(url: str) -> str | None:
        if url not in hashes:
            ingest(*({url} | {server.url(**case) for case in QUICK}))
        return hashes.get(url)

    return stored_hash


@pytest.mark.parametrize("options", CASES)
def test_every_image_is_stored_as_curl_gets_it(
    server: ImageServer, stored: Callable[[str], str | None], options: Options
) -> None:
    url = server.url(**options)
    theirs = curl(url)
    assert theirs == jpeg(int(str(options["size"])))
    assert stored(url) == FileState.of(theirs, 0).hash


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    """The service's, but for the addresses."""
    fetcher = Fetcher(Limits(MANY, 30, 30, 30, attempts=2, redirects=3), HERE)
    yield fetcher
    fetcher.close()


@pytest.mark.parametrize("options", CASES)
def test_a_request_gets_every_image_whole(server: ImageServer, fetcher: Fetcher, options: Options) -> None:
    before = len(server.requests)
    found = RequestFetcher(fetcher, most=1, max_bytes=MANY).fetch(server.url(**options))
    assert found == jpeg(int(str(options["size"])))
    methods = [method for method, _, _ in server.requests[before:]]
    assert methods == ["GET"] * (2 if "redirect" in options else 1)


def test_a_search_by_url(store: Store, reader: ImageReader, site: ImageServer, tmp_path: Path) -> None:
    url = site.url(size=3_500_000, transfer="chunked:8192")
    run(store, reader, url)
    fetcher = Fetcher(Limits(MANY, attempts=2), HERE)
    service = replace(service_for(store, PIXELS, tmp_path), fetcher=fetcher)
    with listening(service) as address, client(address) as web:
        answer = web.post("/search", json={"image_url": url})
        broken = web.post("/search", json={"image_url": site.url(size=3_500_000, cut=1_200_000)})
    service.close()
    assert [hit["product_id"] for hit in answer.json()["hits"]] == ["p0"]
    assert broken.status_code == 422
    assert "incomplete: 1.2 of 3.5 MB arrived; send the image itself instead" in broken.json()["detail"]


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("transfer", ["length", "chunked:8192", "gzip"])
def test_what_ends_early_is_incomplete_and_the_next_run_tries_again(
    store: Store, reader: ImageReader, site: ImageServer, transfer: str, how: str
) -> None:
    url = site.url(size=3_500_000, transfer=transfer, cut=1_200_000 if transfer != "gzip" else 5_000, how=how, times=4)
    reason = rejected(store, reader, url)
    if transfer == "length":
        assert reason == "incomplete: 1.2 of 3.5 MB arrived; the next run tries again"
    assert reason.startswith("incomplete: ")
    assert len(site.requests) == 4, "it is tried again before it is given up"
    assert run(store, reader, url).new == 1


@pytest.mark.parametrize("options", [{"cut": 5_000}, {"status": 500}, {"status": 503, "after": 1}, {"status": 429}])
def test_what_passes_is_waited_for(store: Store, reader: ImageReader, site: ImageServer, options: Options) -> None:
    started = time.monotonic()
    assert run(store, reader, site.url(**options, times=2)).new == 1
    assert [status for _, _, status in site.requests][-1] == 200
    assert len(site.requests) == 3
    assert time.monotonic() - started > float(str(options.get("after", 0))), "as long as the server has asked for"


def test_a_whole_image_that_is_broken_is_called_broken(store: Store, reader: ImageReader, tmp_path: Path) -> None:
    with image_server() as server:
        server.contents["cut.jpg"] = jpeg(500_000)[:300_000]
        assert rejected(store, reader, server.url("cut.jpg")).startswith("the image is broken")
        assert len(server.requests) == 1, "to try it again would not help"


@pytest.mark.parametrize("fault", [{"cut": 5_000}, {"status": 404}, {"page": 1}])
def test_a_row_stays_when_its_image_cannot_be_fetched_again(
    store: Store, reader: ImageReader, site: ImageServer, fault: Options
) -> None:
    run(store, reader, site.url())
    before = next(store.rows(fields=["image", "image_hash", "image_size"]))
    report = ingested(store, reader, site.url(**fault))
    assert report.rejected == 1
    assert next(store.rows(fields=["image", "image_hash", "image_size"])) == before


REASONS: list[tuple[Options, str]] = [
    ({"status": 404}, "the server answered 404; check the URL"),
    ({"status": 403}, "the server answered 403; check the URL"),
    ({"status": 500}, "the server answered 500; the next run tries again"),
    ({"page": 1}, "the server sent a web page (text/html) instead of an image; check the URL"),
    ({"loop": 1}, "it was redirected more than 10 times; check the URL"),
    ({"transfer": "br"}, "the server encoded it as 'br', although asked not to; only gzip is decoded; check the URL"),
]


@pytest.mark.parametrize(("options", "reason"), REASONS, ids=[named(options) for options, _ in REASONS])
def test_a_reason_says_what_happened_and_what_to_do(
    store: Store, reader: ImageReader, site: ImageServer, options: Options, reason: str
) -> None:
    assert rejected(store, reader, site.url(**options)) == reason


def test_a_server_that_is_down(store: Store, reader: ImageReader) -> None:
    reason = rejected(store, reader, "http://127.0.0.1:9/image.jpg")
    assert reason == "the connection failed (Connection refused); the next run tries again"


# What is not sent again


@pytest.mark.parametrize("validator", ["etag", "weak", "date", "both"])
def test_an_unchanged_image_costs_one_request_and_no_body(
    store: Store, reader: ImageReader, site: ImageServer, validator: str
) -> None:
    url = site.url(validator=validator)
    assert run(store, reader, url).new == 1
    sent = site.body_bytes
    again = run(store, reader, url)
    assert (again.unchanged, again.stored, again.embedded) == (1, 0, 0)
    assert [(method, status) for method, _, status in site.requests] == [("GET", 200), ("GET", 304)]
    assert site.body_bytes == sent


@pytest.mark.parametrize("validator", ["etag", "none"])
def test_a_server_that_ignores_the_question_costs_one_request_and_no_forward_pass(
    store: Store, reader: ImageReader, site: ImageServer, validator: str
) -> None:
    url = site.url(validator=validator, ignores=1)
    run(store, reader, url)
    again = run(store, reader, url)
    assert (again.unchanged, again.stored, again.embedded) == (1, 0, 0)
    assert [status for _, _, status in site.requests] == [200, 200]


@pytest.mark.parametrize("validator", ["etag", "date"])
def test_another_version_with_the_same_bytes_is_noted(
    store: Store, reader: ImageReader, site: ImageServer, validator: str
) -> None:
    url = site.url(validator=validator)
    run(store, reader, url)
    site.version = "2"
    again = run(store, reader, url)
    assert (again.unchanged, again.stored, again.embedded) == (1, 1, 0)
    run(store, reader, url)
    assert [status for _, _, status in site.requests] == [200, 200, 304]


def test_another_url_is_another_image_whatever_its_version(
    store: Store, reader: ImageReader, site: ImageServer
) -> None:
    site.contents["one.jpg"], site.contents["two.jpg"] = jpeg(10_000), jpeg(10_001)
    run(store, reader, site.url("one.jpg", validator="etag"))
    assert run(store, reader, site.url("two.jpg", validator="etag")).changed == 1
    assert [status for _, _, status in site.requests] == [200, 200]
    row = next(store.rows(fields=["image", "image_hash", "image_etag"]))
    assert row["image_hash"] == FileState.of(jpeg(10_001), 0).hash


def test_other_metadata_need_no_body(store: Store, reader: ImageReader, site: ImageServer) -> None:
    url = site.url(validator="etag")
    run(store, reader, url)
    priced = [replace(image, metadata={"price": 9.5}) for image in images(url)]
    summary = bring(priced, PIXELS, store, read=reader.read_changed).summary()
    assert (summary.metadata, summary.embedded) == (1, 0)
    assert [status for _, _, status in site.requests] == [200, 304]
    run(store, reader, url)
    assert site.requests[-1][2] == 304, "the version is still known"


def test_a_date_of_this_moment_says_nothing(store: Store, reader: ImageReader, site: ImageServer) -> None:
    site.written = int(time.time())
    url = site.url(validator="date")
    run(store, reader, url)
    run(store, reader, url)
    assert [status for _, _, status in site.requests] == [200, 200], "it may be written again within the same second"


# Within bounds


def small(rules: AddressPolicy = HERE, /, **limits: Any) -> Fetcher:
    return Fetcher(Limits(**{"max_bytes": 100_000, "attempts": 1, **limits}), rules)


@pytest.mark.parametrize("transfer", ["length", "chunked:8192", "close", "gzip", "deflate"])
def test_the_limit_holds_while_the_image_comes(site: ImageServer, transfer: str) -> None:
    fetcher = small()
    with pytest.raises(FetchFailed, match="more than 100000 bytes, which is the limit"):
        fetcher.fetch(site.url(size=30_000_000, transfer=transfer))
    assert site.body_bytes < 10_000_000, "the rest is not read"
    assert len(fetcher.fetch(site.url(size=100_000, transfer=transfer)).content) == 100_000
    fetcher.close()


def test_a_host_gets_so_many_fetches_at_once(site: ImageServer) -> None:
    fetcher = small(per_host=3)
    urls = [site.url(f"{n}.jpg", delay=0.02) for n in range(24)]
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(fetcher.fetch, urls))
    fetcher.close()
    assert site.most_at_once == 3
    assert site.connections == 3, "connections are used again"


def test_seconds_bound_each_step_and_the_whole(site: ImageServer) -> None:
    url = site.url(delay=1)
    for limits, reason in (({"read": 0.2}, "sent nothing for too long"), ({"whole": 0.2}, r"timed out after 0\.2 s")):
        fetcher, started = small(**limits), time.monotonic()
        with pytest.raises(FetchFailed, match=reason):
            fetcher.fetch(url)
        assert time.monotonic() - started < 0.8
        fetcher.close()


def test_retries_end_with_the_time(site: ImageServer) -> None:
    fetcher, started = small(attempts=100, whole=1.0), time.monotonic()
    with pytest.raises(TransientFailure, match="answered 503"):
        fetcher.fetch(site.url(status=503))
    assert time.monotonic() - started < 1.2
    with pytest.raises(TransientFailure, match="answered 503"):
        fetcher.fetch(site.url("later.jpg", status=503, after=3600))
    assert len([path for _, path, _ in site.requests if "later" in path]) == 1, "an hour is not waited for"
    fetcher.close()


def test_a_connection_that_the_server_has_closed_costs_no_try(site: ImageServer) -> None:
    fetcher = small()
    for n in range(5):
        # The server closes it after each answer, and does not say so.
        assert fetcher.fetch(site.url(f"{n}.jpg", hangs_up=1)).content == jpeg(10_000)
    fetcher.close()


@pytest.mark.parametrize(
    ("arrived", "promised", "text"),
    [
        (1_234_567, 3_500_000, "1.2 of 3.5 MB"),
        (0, 3_500_000, "0.0 of 3.5 MB"),
        (12_000, 500_000, "12.0 of 500.0 kB"),
        (1, 1000, "1 of 1000 bytes"),
        (2_000_000, None, "2.0 MB"),
        (7, None, "7 bytes"),
    ],
)
def test_amounts(arrived: int, promised: int | None, text: str) -> None:
    assert describe_progress(arrived, promised) == text
    assert str(IncompleteBody.of(arrived, promised)) == f"incomplete: {text} arrived"


# Only where it may go


def test_private_addresses_are_refused_unless_told_otherwise(store: Store, site: ImageServer, tmp_path: Path) -> None:
    assert rejected(store, image_reader(), site.url()) == (
        "the host '127.0.0.1' leads to 127.0.0.1, which is not a public address; "
        "to reach such addresses, add --allow-private-urls"
    )
    assert not site.requests


@pytest.mark.parametrize(
    "uri", ["ftp://127.0.0.1/x.jpg", "simplecache::http://127.0.0.1/x.jpg", "zip://x.jpg::https://127.0.0.1/x.zip"]
)
def test_fsspec_is_no_way_around(store: Store, uri: str) -> None:
    assert rejected(store, image_reader(), uri) == (
        "its URI names a host that may be private; to reach such hosts, add --allow-private-urls"
    )


def test_a_redirect_is_checked_like_any_url(site: ImageServer, dialled: list[str]) -> None:
    for inside in ("http://127.0.0.2/x.jpg", "http://169.254.169.254/latest", "http://[::1]/"):
        fetcher = small(AddressPolicy(lambda address: str(address) == "127.0.0.1", trusted=True))
        with pytest.raises(FetchFailed, match="which is not a public address"):
            fetcher.fetch(site.url(to=inside))
        fetcher.close()
    assert not dialled


def test_a_user_and_password_of_a_manifest_are_sent_to_their_host_only(site: ImageServer) -> None:
    fetcher = small(AddressPolicy(allow_any, trusted=True))
    url = site.url("image.jpg", transfer="length").replace("//", "//shop:se%40cret@")
    assert fetcher.fetch(url).content == jpeg(10_000)
    assert site.authorizations == ["Basic c2hvcDpzZUBjcmV0"]
    elsewhere = site.url("elsewhere.jpg").replace("127.0.0.1", "localhost")
    fetcher.fetch(site.url("away.jpg", to=elsewhere).replace("//", "//shop:se%40cret@", 1))
    assert site.authorizations == ["Basic c2hvcDpzZUBjcmV0"] * 2, "not to where it was redirected"
    fetcher.close()


def test_a_certificate_that_does_not_hold(store: Store, reader: ImageReader, site: ImageServer, tmp_path: Path) -> None:
    pair = tmp_path / "both.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(pair), "-out", str(pair)], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair)
    site.socket = tls.wrap_socket(site.socket, server_side=True)
    reason = rejected(store, reader, site.url().replace("http://", "https://"))
    assert reason == "its certificate is not valid (self-signed certificate); check the URL"


# As the command


def counted(folder: Path, *arguments: object, **environment: Any) -> tuple[int, dict[str, int]]:
    """Run a command; give its exit status and its counts."""
    done = lookalike(*arguments, "--format", "json", "--uri", "web.db", cwd=folder, **environment)
    return done.returncode, json.loads(done.stdout)


def test_the_command_reads_private_addresses_when_told(site: ImageServer, tmp_path: Path) -> None:
    urls = [site.url(f"{n}.jpg", size=3_500_000, transfer="chunked:8192", validator="etag") for n in (1, 2)]
    (tmp_path / "shop.csv").write_text("product_id,image\n" + "".join(f"p{n},{url}\n" for n, url in enumerate(urls)))
    ingest = ("ingest", "shop.csv", "--encoder", "pixels", "--no-progress")

    code, counts = counted(tmp_path, *ingest, "--report", "report.jsonl")
    assert (code, counts["stored"], counts["rejected"]) == (1, 0, 2)
    assert "add --allow-private-urls" in (tmp_path / "report.jsonl").read_text()
    assert not site.requests

    code, counts = counted(tmp_path, *ingest, "--allow-private-urls")
    assert (code, counts["stored"], counts["rejected"]) == (0, 2, 0)
    code, counts = counted(tmp_path, *ingest, LOOKALIKE_ALLOW_PRIVATE_URLS="1")
    assert (code, counts["unchanged"]) == (0, 2)
    code, counts = counted(tmp_path, *ingest, "--dry-run", LOOKALIKE_ALLOW_PRIVATE_URLS="1")
    assert (code, counts["unchanged"]) == (0, 2)
    assert [status for _, _, status in site.requests] == [200, 200, 304, 304, 304, 304]


# What a collection keeps of it


def test_ctrl_c_does_not_wait_for_a_server_that_is_slow(site: ImageServer, tmp_path: Path) -> None:
    urls = [site.url("good.jpg", size=10_000), *(site.url(f"{n}.jpg", size=10_000, delay=30) for n in range(40))]
    rows = [{"product_id": str(n), "image": url} for n, url in enumerate(urls)]
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = process_command("ingest", "shop.jsonl", "--encoder", "pixels", "--allow-private-urls", "--report", "r")
    running = subprocess.Popen(
        command, cwd=tmp_path, env=process_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # The good one was answered; whoever else was asked is waited for.
    until(lambda: bool(site.requests))
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=10)
    assert running.returncode == 130, said
    assert b"Interrupted" in said
    assert "rejected" not in (tmp_path / "r").read_text()


def test_a_copy_keeps_the_versions(store: Store, reader: ImageReader, site: ImageServer, tmp_path: Path) -> None:
    url, file = site.url(validator="both"), tmp_path / "shop.parquet"
    run(store, reader, url)
    export_rows(store, file)
    with Store.create(store.uri, check_file(file), collection="copy") as copy:
        import_rows(copy, file)
        row = next(copy.rows(fields=["image_etag", "image_mtime"]))
        assert (row["image_etag"], row["image_mtime"]) == ('"10000-1"', WRITTEN * 10**9)
        assert run(copy, reader, url).unchanged == 1
    assert site.requests[-1][2] == 304


def test_a_file_of_an_earlier_version_is_imported(store: Store, tmp_path: Path) -> None:
    store.upsert([a_row("1.jpg", vector=np.eye(1, PIXELS.fingerprint.dim, dtype=np.float32)[0])])
    file = tmp_path / "shop.parquet"
    export_rows(store, file)
    table = parquet.read_table(file).drop_columns(["image_etag"])
    parquet.write_table(table.replace_schema_metadata({**table.schema.metadata, LAYOUT_PROPERTY.encode(): b"1"}), file)
    with Store.create(store.uri, check_file(file), collection="copy") as copy:
        assert import_rows(copy, file) == 1
        assert next(copy.rows(fields=["image_etag"]))["image_etag"] == ""


def make_earlier(store: Store, name: str) -> None:
    """Make a collection with the columns of layout 1, beside another one."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("image_id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=store.fingerprint.dim)
    for text in ("product_id", "image", "source", "image_hash", "metadata_hash"):
        schema.add_field(text, DataType.VARCHAR, max_length=MAX_BYTES[text])
    for number in ("image_size", "image_mtime"):
        schema.add_field(number, DataType.INT64)
    schema.add_field("metadata", DataType.JSON)
    properties = {FINGERPRINT_PROPERTY: store.fingerprint.to_json(), LAYOUT_PROPERTY: "1"}
    client = MilvusClient(store.uri)
    client.create_collection(f"{name}__v1_00000000", schema=schema, properties=properties)
    client.create_alias(f"{name}__v1_00000000", name)
    client.close()


@pytest.mark.parametrize(("validator", "second"), [("etag", 200), ("date", 304), ("both", 304), ("none", 200)])
def test_a_collection_of_an_earlier_version_goes_on(
    store: Store, reader: ImageReader, site: ImageServer, validator: str, second: int
) -> None:
    make_earlier(store, "old")
    with Store.open(store.uri, collection="old") as old:
        url = site.url(validator=validator)
        assert run(old, reader, url).new == 1
        again = run(old, reader, url)
        assert (again.unchanged, again.stored, again.embedded) == (1, 0, 0)
        assert [status for _, _, status in site.requests] == [200, second]
        # What the version before has put in the place of a date is not sent as one.
        row = next(old.rows(fields=COLUMNS))
        vector = np.asarray(row["embedding"], dtype=np.float32)
        old.upsert([ImageRow(**{**row, "embedding": vector, "image_mtime": 4_611_686_018_427_387_905})])
        again = run(old, reader, url)
        assert (again.unchanged, again.embedded) == (1, 0)
        assert site.requests[-1][2] == 200


class Other(PixelEncoder):
    """An encoder that a collection can be moved to."""

    fingerprint = replace(PixelEncoder.fingerprint, preprocessing="another")


def test_reindex_keeps_the_versions(store: Store, reader: ImageReader, site: ImageServer) -> None:
    url = site.url(validator="etag")
    run(store, reader, url)
    with Versions(store.uri, collection=store.name) as versions:
        model = LazyEngine(lambda: Engine(Other(), 4), read=reader.read_changed)
        reindex(versions, model, Report(), PipelineLimits(workers=2), Threshold("0"))
    with Store.open(store.uri, collection=store.name) as after:
        assert after.fingerprint == Other.fingerprint
        assert next(after.rows(fields=["image_etag"]))["image_etag"] == '"10000-1"'
    assert site.requests[0][2] == 200
    assert site.requests[-1][2] == 304


# What fsspec opens


class Trickle(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A file system that does not know sizes, and whose files give a few bytes at a time, as sockets do."""

    protocol = "trickle"
    store: ClassVar[dict[str, Any]] = {}
    short = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("trickle://").lstrip("/")

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        about = super().info(path, **options)
        return {**about, "size": about["size"] if self.short else None}

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        content: bytes = super().cat_file(path, *arguments, **options)
        return content[:1000] if self.short else content

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return Sip(super()._open(path, *arguments, **options).getvalue())


class Sip(io.BytesIO):
    """Gives at most 999 bytes a call."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 999)) if size and size > 0 else super().read(size)


@pytest.fixture
def trickle() -> Iterator[type[Trickle]]:
    fsspec.register_implementation("trickle", Trickle, clobber=True)
    with fsspec.open("memory://image.jpg", "wb") as file:
        file.write(jpeg(500_000))
    Trickle.store["/image.jpg"] = MemoryFileSystem.store["/image.jpg"]
    yield Trickle
    Trickle.store.clear()
    Trickle.short = False


def test_a_stream_that_gives_a_little_at_a_time_is_read_to_its_end(reader: ImageReader, trickle: type[Trickle]) -> None:
    assert reader.read("trickle://image.jpg")[0] == jpeg(500_000)


def test_less_than_the_size_that_was_told_is_incomplete(reader: ImageReader, trickle: type[Trickle]) -> None:
    trickle.short = True
    with pytest.raises(BadImage, match=r"incomplete: 1.0 of 500.0 kB arrived"):
        reader.read("trickle://image.jpg")

"""Images over HTTP: ingest and the service get every byte however it is served, or a reason why not."""

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
from lookalike.ingest.admin.parquet import check_export_file, export_rows, import_rows
from lookalike.ingest.admin.reindex import reindex
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.stages import PipelineContext
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
LOOPBACK = AddressPolicy(lambda address: address.is_loopback)
MAX_FETCH_BYTES = 64 * 2**20

SIZES = (10_000, 500_000, 3_500_000, 30_000_000)
TRANSFERS = ("length", "chunked:8192", "chunked:1000000", "close", "gzip")
# Chunks of one byte cost client and server some microseconds per byte: 3.5 and 30 MB would take minutes.
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


def join_values(options: Options) -> str:
    return " ".join(map(str, options.values()))


CASES = [
    *(pytest.param(case, id=join_values(case)) for case in QUICK),
    pytest.param(SLOW, id=join_values(SLOW), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", autouse=True)
def refused_addresses() -> Iterator[list[str]]:
    """Addresses of other machines that the code tried to reach; the guard refuses them."""
    with loopback_only() as refused:
        yield refused


@pytest.fixture(scope="module")
def reader() -> ImageReader:
    """A reader that may connect to this machine."""
    return image_reader(allow_private=True)


@pytest.fixture
def site() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(str(tmp_path / "web.db"), PIXELS.fingerprint) as store:
        yield store


def list_images(*urls: str) -> list[ProductImage]:
    """Images of a source; their keys do not depend on the URL."""
    return [ProductImage.named("web", f"p{n}", str(n), url, {}) for n, url in enumerate(urls)]


def ingest_urls(store: Store, reader: ImageReader, *urls: str) -> Report:
    return bring(list_images(*urls), PIXELS, store, read=reader.read_changed)


def run_ingest(store: Store, reader: ImageReader, *urls: str) -> Summary:
    return ingest_urls(store, reader, *urls).summary()


def get_reason(store: Store, reader: ImageReader, url: str) -> str:
    """Return why ingest rejects the image at a URL."""
    [rejection] = ingest_urls(store, reader, url).first_rejections
    return rejection.reason


def fetch_with_curl(url: str) -> bytes:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
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
    """Return the stored hash of the image at a URL; the first call ingests all quick cases in one run."""
    path, hashes = tmp_path_factory.mktemp("table") / "web.db", dict[str, str]()

    def ingest(*urls: str) -> None:
        with Store.create(str(path), PIXELS.fingerprint) as store:
            run_ingest(store, reader, *urls)
            hashes.update((row["image"], row["image_hash"]) for row in store.rows(fields=["image", "image_hash"]))

    def stored_hash(url: str) -> str | None:
        if url not in hashes:
            ingest(*({url} | {server.url(**case) for case in QUICK}))
        return hashes.get(url)

    return stored_hash


@pytest.mark.parametrize("options", CASES)
def test_ingest_stores_the_same_bytes_as_curl(
    server: ImageServer, stored: Callable[[str], str | None], options: Options
) -> None:
    url = server.url(**options)
    theirs = fetch_with_curl(url)
    assert theirs == jpeg(int(str(options["size"])))
    assert stored(url) == FileState.of(theirs, 0).hash


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    """A fetcher with the limits of the service, which may connect to this machine."""
    fetcher = Fetcher(Limits(MAX_FETCH_BYTES, 30, 30, 30, attempts=2, redirects=3), LOOPBACK)
    yield fetcher
    fetcher.close()


@pytest.mark.parametrize("options", CASES)
def test_a_request_fetches_every_byte(server: ImageServer, fetcher: Fetcher, options: Options) -> None:
    before = len(server.requests)
    content = RequestFetcher(fetcher, max_images=1, max_bytes=MAX_FETCH_BYTES).fetch(server.url(**options))
    assert content == jpeg(int(str(options["size"])))
    methods = [method for method, _, _ in server.requests[before:]]
    assert methods == ["GET"] * (2 if "redirect" in options else 1)


def test_search_by_url_finds_the_product_or_says_what_failed(
    store: Store, reader: ImageReader, site: ImageServer, tmp_path: Path
) -> None:
    url = site.url(size=3_500_000, transfer="chunked:8192")
    run_ingest(store, reader, url)
    fetcher = Fetcher(Limits(MAX_FETCH_BYTES, attempts=2), LOOPBACK)
    service = replace(service_for(store, PIXELS, tmp_path), fetcher=fetcher)
    with listening(service) as address, client(address) as web:
        response = web.post("/search", json={"image_url": url})
        broken = web.post("/search", json={"image_url": site.url(size=3_500_000, cut=1_200_000)})
    service.close()
    assert [hit["product_id"] for hit in response.json()["hits"]] == ["p0"]
    assert broken.status_code == 422
    assert "incomplete: 1.2 of 3.5 MB arrived; send the image itself instead" in broken.json()["detail"]


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("transfer", ["length", "chunked:8192", "gzip"])
def test_a_truncated_body_is_retried_then_rejected_as_incomplete_until_the_next_run(
    store: Store, reader: ImageReader, site: ImageServer, transfer: str, how: str
) -> None:
    url = site.url(size=3_500_000, transfer=transfer, cut=1_200_000 if transfer != "gzip" else 5_000, how=how, times=4)
    reason = get_reason(store, reader, url)
    if transfer == "length":
        assert reason == "incomplete: 1.2 of 3.5 MB arrived; the next run tries again"
    assert reason.startswith("incomplete: ")
    assert len(site.requests) == 4, "three retries"
    assert run_ingest(store, reader, url).new == 1


@pytest.mark.parametrize("options", [{"cut": 5_000}, {"status": 500}, {"status": 503, "after": 1}, {"status": 429}])
def test_a_transient_failure_is_retried(store: Store, reader: ImageReader, site: ImageServer, options: Options) -> None:
    started = time.monotonic()
    assert run_ingest(store, reader, site.url(**options, times=2)).new == 1
    assert [status for _, _, status in site.requests][-1] == 200
    assert len(site.requests) == 3
    assert time.monotonic() - started > float(str(options.get("after", 0))), "Retry-After is honoured"


def test_a_complete_but_broken_image_is_rejected_without_a_retry(
    store: Store, reader: ImageReader, tmp_path: Path
) -> None:
    with image_server() as server:
        server.contents["cut.jpg"] = jpeg(500_000)[:300_000]
        assert get_reason(store, reader, server.url("cut.jpg")).startswith("the image is broken")
        assert len(server.requests) == 1, "no retry"


@pytest.mark.parametrize("fault", [{"cut": 5_000}, {"status": 404}, {"page": 1}])
def test_a_row_stays_when_its_image_can_no_longer_be_fetched(
    store: Store, reader: ImageReader, site: ImageServer, fault: Options
) -> None:
    run_ingest(store, reader, site.url())
    before = next(store.rows(fields=["image", "image_hash", "image_size"]))
    report = ingest_urls(store, reader, site.url(**fault))
    assert report.rejected == 1
    assert next(store.rows(fields=["image", "image_hash", "image_size"])) == before


REASONS: list[tuple[Options, str]] = [
    ({"status": 404}, "the server answered 404; check the URL"),
    ({"status": 403}, "the server answered 403; check the URL"),
    ({"status": 500}, "the server answered 500; the next run tries again"),
    ({"page": 1}, "the server sent a web page (text/html) instead of an image; check the URL"),
    ({"loop": 1}, "it was redirected more than 10 times; check the URL"),
    (
        {"transfer": "br"},
        "the server encoded it as 'br', although asked not to; only gzip and deflate are decoded; check the URL",
    ),
]


@pytest.mark.parametrize(("options", "reason"), REASONS, ids=[join_values(options) for options, _ in REASONS])
def test_the_reason_says_what_happened_and_what_to_do(
    store: Store, reader: ImageReader, site: ImageServer, options: Options, reason: str
) -> None:
    assert get_reason(store, reader, site.url(**options)) == reason


def test_a_server_that_is_down_is_a_reason(store: Store, reader: ImageReader) -> None:
    reason = get_reason(store, reader, "http://127.0.0.1:9/image.jpg")
    assert reason == "the connection failed (Connection refused); the next run tries again"


# Unchanged images


@pytest.mark.parametrize("validator", ["etag", "weak", "date", "both"])
def test_an_unchanged_image_costs_one_request_and_no_body(
    store: Store, reader: ImageReader, site: ImageServer, validator: str
) -> None:
    url = site.url(validator=validator)
    assert run_ingest(store, reader, url).new == 1
    sent = site.body_bytes
    again = run_ingest(store, reader, url)
    assert (again.unchanged, again.stored, again.embedded) == (1, 0, 0)
    assert [(method, status) for method, _, status in site.requests] == [("GET", 200), ("GET", 304)]
    assert site.body_bytes == sent


@pytest.mark.parametrize("validator", ["etag", "none"])
def test_a_server_that_ignores_validators_costs_one_request_and_no_forward_pass(
    store: Store, reader: ImageReader, site: ImageServer, validator: str
) -> None:
    url = site.url(validator=validator, ignores=1)
    run_ingest(store, reader, url)
    again = run_ingest(store, reader, url)
    assert (again.unchanged, again.stored, again.embedded) == (1, 0, 0)
    assert [status for _, _, status in site.requests] == [200, 200]


@pytest.mark.parametrize("validator", ["etag", "date"])
def test_a_new_version_with_the_same_bytes_updates_the_row_without_a_forward_pass(
    store: Store, reader: ImageReader, site: ImageServer, validator: str
) -> None:
    url = site.url(validator=validator)
    run_ingest(store, reader, url)
    site.version = "2"
    again = run_ingest(store, reader, url)
    assert (again.unchanged, again.stored, again.embedded) == (1, 1, 0)
    run_ingest(store, reader, url)
    assert [status for _, _, status in site.requests] == [200, 200, 304]


def test_a_new_url_is_fetched_even_with_the_same_etag(store: Store, reader: ImageReader, site: ImageServer) -> None:
    site.contents["one.jpg"], site.contents["two.jpg"] = jpeg(10_000), jpeg(10_001)
    run_ingest(store, reader, site.url("one.jpg", validator="etag"))
    assert run_ingest(store, reader, site.url("two.jpg", validator="etag")).changed == 1
    assert [status for _, _, status in site.requests] == [200, 200]
    row = next(store.rows(fields=["image", "image_hash", "image_etag"]))
    assert row["image_hash"] == FileState.of(jpeg(10_001), 0).hash


def test_new_metadata_needs_no_body(store: Store, reader: ImageReader, site: ImageServer) -> None:
    url = site.url(validator="etag")
    run_ingest(store, reader, url)
    priced = [replace(image, metadata={"price": 9.5}) for image in list_images(url)]
    summary = bring(priced, PIXELS, store, read=reader.read_changed).summary()
    assert (summary.metadata, summary.embedded) == (1, 0)
    assert [status for _, _, status in site.requests] == [200, 304]
    run_ingest(store, reader, url)
    assert site.requests[-1][2] == 304, "the row still has the ETag"


def test_a_last_modified_of_this_second_is_not_trusted(store: Store, reader: ImageReader, site: ImageServer) -> None:
    site.written = int(time.time())
    url = site.url(validator="date")
    run_ingest(store, reader, url)
    run_ingest(store, reader, url)
    assert [status for _, _, status in site.requests] == [200, 200], "the image may change again within the same second"


# Limits


def make_fetcher(policy: AddressPolicy = LOOPBACK, /, **limits: Any) -> Fetcher:
    return Fetcher(Limits(**{"max_bytes": 100_000, "attempts": 1, **limits}), policy)


@pytest.mark.parametrize("transfer", ["length", "chunked:8192", "close", "gzip", "deflate"])
def test_the_byte_limit_ends_a_fetch_early(site: ImageServer, transfer: str) -> None:
    fetcher = make_fetcher()
    with pytest.raises(FetchFailed, match="more than 100000 bytes, which is the limit"):
        fetcher.fetch(site.url(size=30_000_000, transfer=transfer))
    assert site.body_bytes < 10_000_000, "the rest of the body is not read"
    assert len(fetcher.fetch(site.url(size=100_000, transfer=transfer)).content) == 100_000
    fetcher.close()


def test_at_most_per_host_fetches_run_at_once(site: ImageServer) -> None:
    fetcher = make_fetcher(per_host=3)
    urls = [site.url(f"{n}.jpg", delay=0.02) for n in range(24)]
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(fetcher.fetch, urls))
    fetcher.close()
    assert site.max_concurrent == 3
    assert site.connections == 3, "connections are reused"


def test_timeouts_bound_each_read_and_the_whole_fetch(site: ImageServer) -> None:
    url = site.url(delay=1)
    for limits, reason in (({"read": 0.2}, "sent nothing for too long"), ({"whole": 0.2}, r"timed out after 0\.2 s")):
        fetcher, started = make_fetcher(**limits), time.monotonic()
        with pytest.raises(FetchFailed, match=reason):
            fetcher.fetch(url)
        assert time.monotonic() - started < 0.8
        fetcher.close()


def test_the_deadline_ends_retries(site: ImageServer) -> None:
    fetcher, started = make_fetcher(attempts=100, whole=1.0), time.monotonic()
    with pytest.raises(TransientFailure, match="answered 503"):
        fetcher.fetch(site.url(status=503))
    assert time.monotonic() - started < 1.2
    with pytest.raises(TransientFailure, match="answered 503"):
        fetcher.fetch(site.url("later.jpg", status=503, after=3600))
    assert len([path for _, path, _ in site.requests if "later" in path]) == 1, (
        "a Retry-After beyond the deadline ends the fetch"
    )
    fetcher.close()


def test_a_connection_closed_by_the_server_costs_no_attempt(site: ImageServer) -> None:
    fetcher = make_fetcher()
    for n in range(5):
        # The server closes the connection after each response without a Connection: close.
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
def test_progress_is_described_in_a_fitting_unit(arrived: int, promised: int | None, text: str) -> None:
    assert describe_progress(arrived, promised) == text
    assert str(IncompleteBody.of(arrived, promised)) == f"incomplete: {text} arrived"


# Addresses


def test_private_addresses_are_refused_by_default(store: Store, site: ImageServer, tmp_path: Path) -> None:
    assert get_reason(store, image_reader(), site.url()) == (
        "the host '127.0.0.1' leads to 127.0.0.1, which is not a public address; "
        "to reach such addresses, add --allow-private-urls"
    )
    assert not site.requests


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://127.0.0.1/x.jpg",
        "simplecache::http://127.0.0.1/x.jpg",
        "zip://x.jpg::https://127.0.0.1/x.zip",
        "reference://x.jpg::/photos/references.json",
        "reference::file:///photos/references.json",
    ],
)
def test_fsspec_uris_that_name_a_host_are_refused_too(store: Store, uri: str) -> None:
    assert get_reason(store, image_reader(), uri) == (
        "its URI names a host that may be private; to reach such hosts, add --allow-private-urls"
    )


def test_a_redirect_to_a_private_address_is_refused(site: ImageServer, refused_addresses: list[str]) -> None:
    for private in ("http://127.0.0.2/x.jpg", "http://169.254.169.254/latest", "http://[::1]/"):
        fetcher = make_fetcher(AddressPolicy(lambda address: str(address) == "127.0.0.1", trusted=True))
        with pytest.raises(FetchFailed, match="which is not a public address"):
            fetcher.fetch(site.url(to=private))
        fetcher.close()
    assert not refused_addresses


def test_credentials_in_a_url_are_sent_to_its_host_only(site: ImageServer) -> None:
    fetcher = make_fetcher(AddressPolicy(allow_any, trusted=True))
    url = site.url("image.jpg", transfer="length").replace("//", "//shop:se%40cret@")
    assert fetcher.fetch(url).content == jpeg(10_000)
    assert site.authorizations == ["Basic c2hvcDpzZUBjcmV0"]
    elsewhere = site.url("elsewhere.jpg").replace("127.0.0.1", "localhost")
    fetcher.fetch(site.url("away.jpg", to=elsewhere).replace("//", "//shop:se%40cret@", 1))
    assert site.authorizations == ["Basic c2hvcDpzZUBjcmV0"] * 2, "none to the target of the redirect"
    fetcher.close()


def test_an_untrusted_certificate_is_a_reason(
    store: Store, reader: ImageReader, site: ImageServer, tmp_path: Path
) -> None:
    pair = tmp_path / "both.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(pair), "-out", str(pair)], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair)
    site.socket = tls.wrap_socket(site.socket, server_side=True)
    reason = get_reason(store, reader, site.url().replace("http://", "https://"))
    assert reason == "its certificate is not valid (self-signed certificate); check the URL"


# The command


def run_command(folder: Path, *arguments: object, **environment: Any) -> tuple[int, dict[str, int]]:
    """Run a command; return its exit status and its counts."""
    done = lookalike(*arguments, "--format", "json", "--uri", "web.db", cwd=folder, **environment)
    return done.returncode, json.loads(done.stdout)


def test_the_command_reads_private_addresses_with_the_option(site: ImageServer, tmp_path: Path) -> None:
    urls = [site.url(f"{n}.jpg", size=3_500_000, transfer="chunked:8192", validator="etag") for n in (1, 2)]
    (tmp_path / "shop.csv").write_text("product_id,image\n" + "".join(f"p{n},{url}\n" for n, url in enumerate(urls)))
    ingest = ("ingest", "shop.csv", "--encoder", "pixels", "--no-progress")

    code, counts = run_command(tmp_path, *ingest, "--report", "report.jsonl")
    assert (code, counts["stored"], counts["rejected"]) == (1, 0, 2)
    assert "add --allow-private-urls" in (tmp_path / "report.jsonl").read_text()
    assert not site.requests

    code, counts = run_command(tmp_path, *ingest, "--allow-private-urls")
    assert (code, counts["stored"], counts["rejected"]) == (0, 2, 0)
    code, counts = run_command(tmp_path, *ingest, LOOKALIKE_ALLOW_PRIVATE_URLS="1")
    assert (code, counts["unchanged"]) == (0, 2)
    code, counts = run_command(tmp_path, *ingest, "--dry-run", LOOKALIKE_ALLOW_PRIVATE_URLS="1")
    assert (code, counts["unchanged"]) == (0, 2)
    assert [status for _, _, status in site.requests] == [200, 200, 304, 304, 304, 304]


def test_ctrl_c_does_not_wait_for_a_slow_server(site: ImageServer, tmp_path: Path) -> None:
    urls = [site.url("good.jpg", size=10_000), *(site.url(f"{n}.jpg", size=10_000, delay=30) for n in range(40))]
    rows = [{"product_id": str(n), "image": url} for n, url in enumerate(urls)]
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = process_command("ingest", "shop.jsonl", "--encoder", "pixels", "--allow-private-urls", "--report", "r")
    running = subprocess.Popen(
        command, cwd=tmp_path, env=process_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # All other responses are delayed.
    until(lambda: bool(site.requests))
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=10)
    assert running.returncode == 130, stderr
    assert b"Interrupted" in stderr
    assert "rejected" not in (tmp_path / "r").read_text()


# Collections


def test_export_and_import_keep_etags_and_dates(
    store: Store, reader: ImageReader, site: ImageServer, tmp_path: Path
) -> None:
    url, file = site.url(validator="both"), tmp_path / "shop.parquet"
    run_ingest(store, reader, url)
    export_rows(store, file)
    with Store.create(store.uri, check_export_file(file), collection="copy") as copy:
        import_rows(copy, file)
        row = next(copy.rows(fields=["image_etag", "image_mtime"]))
        assert (row["image_etag"], row["image_mtime"]) == ('"10000-1"', WRITTEN * 10**9)
        assert run_ingest(copy, reader, url).unchanged == 1
    assert site.requests[-1][2] == 304


def test_a_file_exported_with_the_first_layout_is_imported(store: Store, tmp_path: Path) -> None:
    store.upsert([a_row("1.jpg", vector=np.eye(1, PIXELS.fingerprint.dim, dtype=np.float32)[0])])
    file = tmp_path / "shop.parquet"
    export_rows(store, file)
    table = parquet.read_table(file).drop_columns(["image_etag"])
    parquet.write_table(table.replace_schema_metadata({**table.schema.metadata, LAYOUT_PROPERTY.encode(): b"1"}), file)
    with Store.create(store.uri, check_export_file(file), collection="copy") as copy:
        assert import_rows(copy, file) == 1
        assert next(copy.rows(fields=["image_etag"]))["image_etag"] == ""


def create_first_layout(store: Store, name: str) -> None:
    """Create a collection with the columns of layout 1 in the same Milvus."""
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
def test_a_collection_of_the_first_layout_works_without_etags(
    store: Store, reader: ImageReader, site: ImageServer, validator: str, second: int
) -> None:
    create_first_layout(store, "old")
    with Store.open(store.uri, collection="old") as old:
        url = site.url(validator=validator)
        assert run_ingest(old, reader, url).new == 1
        again = run_ingest(old, reader, url)
        assert (again.unchanged, again.stored, again.embedded) == (1, 0, 0)
        assert [status for _, _, status in site.requests] == [200, second]
        # The first layout stored a hash in place of a date; it is not sent as a date.
        row = next(old.rows(fields=COLUMNS))
        vector = np.asarray(row["embedding"], dtype=np.float32)
        old.upsert([ImageRow(**{**row, "embedding": vector, "image_mtime": 4_611_686_018_427_387_905})])
        again = run_ingest(old, reader, url)
        assert (again.unchanged, again.embedded) == (1, 0)
        assert site.requests[-1][2] == 200


class OtherPixels(PixelEncoder):
    """An encoder with another fingerprint, to reindex with."""

    fingerprint = replace(PixelEncoder.fingerprint, preprocessing="another")


def test_reindex_keeps_etags(store: Store, reader: ImageReader, site: ImageServer) -> None:
    url = site.url(validator="etag")
    run_ingest(store, reader, url)
    with Versions(store.uri, collection=store.name) as versions:
        engine = LazyEngine(lambda: Engine(OtherPixels(), 4))
        context = PipelineContext(engine, PipelineLimits(workers=2), reader.read_changed)
        reindex(versions, context, Report(), Threshold("0"))
    with Store.open(store.uri, collection=store.name) as after:
        assert after.fingerprint == OtherPixels.fingerprint
        assert next(after.rows(fields=["image_etag"]))["image_etag"] == '"10000-1"'
    assert site.requests[0][2] == 200
    assert site.requests[-1][2] == 304


# fsspec


class SlowFiles(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A file system of unknown sizes, whose files return a few bytes per read, as sockets do.

    With `truncates` it knows sizes, but returns only the first 1000 bytes.
    """

    protocol = "trickle"
    store: ClassVar[dict[str, Any]] = {}
    truncates = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("trickle://").lstrip("/")

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        info = super().info(path, **options)
        return {**info, "size": info["size"] if self.truncates else None}

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        content: bytes = super().cat_file(path, *arguments, **options)
        return content[:1000] if self.truncates else content

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return SlowFile(super()._open(path, *arguments, **options).getvalue())


class SlowFile(io.BytesIO):
    """Returns at most 999 bytes per read."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 999)) if size and size > 0 else super().read(size)


@pytest.fixture
def slow_files() -> Iterator[type[SlowFiles]]:
    fsspec.register_implementation("trickle", SlowFiles, clobber=True)
    with fsspec.open("memory://image.jpg", "wb") as file:
        file.write(jpeg(500_000))
    SlowFiles.store["/image.jpg"] = MemoryFileSystem.store["/image.jpg"]
    yield SlowFiles
    SlowFiles.store.clear()
    SlowFiles.truncates = False


def test_a_stream_with_short_reads_is_read_to_its_end(reader: ImageReader, slow_files: type[SlowFiles]) -> None:
    assert reader.read("trickle://image.jpg")[0] == jpeg(500_000)


def test_fewer_bytes_than_the_known_size_is_incomplete(reader: ImageReader, slow_files: type[SlowFiles]) -> None:
    slow_files.truncates = True
    with pytest.raises(BadImage, match=r"incomplete: 1.0 of 500.0 kB arrived"):
        reader.read("trickle://image.jpg")

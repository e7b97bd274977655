"""The command `lookalike`: what it prints, and its exit status."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command import LAYOUT, ROOT, fails, lookalike, process_command, process_environment, wait_for_rows
from PIL import Image


@pytest.fixture(scope="module")
def shop(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample catalogue in ./photos and its collection in ./lookalike.db, made by the command."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(catalogue, folder, dirs_exist_ok=True)
    done = lookalike("ingest", "photos", *LAYOUT, "--encoder", "pixels", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert b"stored 192, rejected 0" in done.stdout
    assert b"bag/black-dotted-bag/1.jpg' is product 'black-dotted-bag', category 'bag'" in done.stderr
    return folder


def test_help_imports_no_heavy_library(tmp_path: Path) -> None:
    script = "import sys, lookalike.cli\ntry: lookalike.cli.main(['--help'])\nexcept SystemExit: pass\n"
    script += "print(*({'torch', 'transformers', 'pymilvus', 'fastapi'} & set(sys.modules)), file=sys.stderr, end='')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
    assert done.stderr == b""
    for verb in (b"ingest", b"search", b"info", b"sample", b"encoders"):
        assert verb in done.stdout


def test_search_prints_json_ids_or_a_table(shop: Path) -> None:
    query = "queries/red-plain-mug.jpg"

    result = json.loads(lookalike("search", query, "--format", "json", "--limit", 3, cwd=shop).stdout)
    ids = lookalike("search", query, "--format", "ids", "--limit", 3, cwd=shop).stdout.decode().split()
    table = lookalike("search", query, "--limit", 3, cwd=shop).stdout.decode()

    assert set(result) == {"hits", "took_ms", "next_offset"}
    assert set(result["hits"][0]) == {"product_id", "score", "image_id", "image", "metadata"}
    assert [hit["product_id"] for hit in result["hits"]] == ids
    assert len(ids) == 3
    assert all(word in table for word in (*ids, "mug", "photos/", "score"))


def test_search_reads_standard_input_filters_and_draws_a_sheet(shop: Path, tmp_path: Path) -> None:
    query = (shop / "queries" / "red-plain-mug.jpg").read_bytes()
    sheet = tmp_path / "sheet.png"

    where = ("--where", "category in bag, hat", "--where", "category != hat")
    done = lookalike("search", "-", *where, "--format", "ids", "--sheet", sheet, cwd=shop, stdin=query)

    ids = done.stdout.decode().split()
    assert len(ids) == 8
    assert all(product.endswith("-bag") for product in ids)
    with Image.open(sheet) as image:
        assert image.width > 1_000


def test_search_by_product_excludes_that_product(shop: Path) -> None:
    done = lookalike("search", "--product", "red-plain-mug", "--format", "ids", "--limit", 64, cwd=shop)
    assert len(done.stdout.decode().split()) == 63
    assert b"red-plain-mug" not in done.stdout


def test_info_counts_images_products_and_columns(shop: Path) -> None:
    info = json.loads(lookalike("info", "--format", "json", cwd=shop).stdout)
    assert (info["images"], info["products"]) == (192, 64)
    assert info["columns"] == {"category": {"text": 192}}
    assert info["encoder"]["encoder"] == "pixels"
    assert info["encoder"]["dim"] == 768
    assert b"192 images of 64 products" in lookalike("info", cwd=shop).stdout


def test_encoders_lists_what_is_installed(shop: Path) -> None:
    encoders = json.loads(lookalike("encoders", "--format", "json", cwd=shop).stdout)
    assert {row["name"]: row["has_text"] for row in encoders} == {
        "efficientnet-lite0": False,
        "clip": True,
        "resnet50": False,
        "pixels": False,
    }
    assert encoders[0]["state"] == "installed"


def test_a_profile_measures_each_stage(shop: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    done = lookalike(
        "ingest", shop / "photos", *LAYOUT, "--encoder", "pixels", "--profile", trace, "--no-progress", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert b"device busy" in done.stderr
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    stored = json.loads(lookalike("info", "--format", "json", cwd=tmp_path).stdout)["images"]
    for stage in ("read", "decode", "resize", "forward", "upsert", "flush"):
        assert sum(span["args"]["images"] for span in spans if span["name"] == stage) == stored, stage
    assert all(span["dur"] >= 0 and span["ts"] >= 0 for span in spans)
    thread_ids = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert {span["tid"] for span in spans} == thread_ids
    assert "cannot be written" in fails(2, "ingest", shop / "photos", "--profile", "no/folder/t", cwd=tmp_path)
    source = (shop / "products.csv", "--encoder", "pixels", "--profile")
    assert "is the source itself" in fails(2, "ingest", *source, shop / "products.csv", cwd=tmp_path)
    if Path("/dev/full").exists():
        done = lookalike("ingest", *source, "/dev/full", cwd=tmp_path)
        assert done.returncode == 2
        assert b"not written to its end (No space left on device)" in done.stderr


def test_settings_come_from_the_environment_and_from_env_files(shop: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"MILVUS_URI={shop}/lookalike.db\nLOOKALIKE_COLLECTION=nothing\n")
    assert "no collection 'nothing'" in fails(2, "info", cwd=tmp_path)
    assert lookalike("info", cwd=tmp_path, LOOKALIKE_COLLECTION="products").returncode == 0
    assert lookalike("info", "-c", "products", cwd=tmp_path).returncode == 0


def test_the_summary_is_one_json_object_and_the_report_lists_every_rejection(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "mug" / "m1"
    folder.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(folder / "good.png")
    for n in range(12):
        (folder / f"bad{n}.jpg").write_text("no image")

    arguments = ("photos", *LAYOUT, "--encoder", "pixels", "--format", "json", "--report", "report.jsonl")
    done = lookalike("ingest", *arguments, cwd=tmp_path)

    summary = json.loads(done.stdout)
    assert done.returncode == 0
    assert (summary["stored"], summary["rejected"]) == (1, 12)
    assert {"seconds", "images_per_second", "collection", "uri", "encoder"} <= set(summary)
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] != "rejected"] == ["new"]
    reasons = [line["reason"] for line in lines if line["event"] == "rejected"]
    assert len(reasons) == 12
    assert all(reason.startswith("not an image") for reason in reasons)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ingest", "nothing"), "SOURCE 'nothing' cannot be read: No such file"),
        (("ingest", "."), "holds no images"),
        (("ingest", "a" * 300), "cannot be read"),
        (("ingest", "photos", "--layout", "{image}"), "no {product_id}"),
        (
            ("ingest", "photos", "--layout", "{a}/{b}/{c}/{product_id}"),
            "fits none of the one image: 'm1/1.png' has 2 levels, the layout has 4",
        ),
        (("ingest", "photos", "--report", "no/folder/r.jsonl"), "--report 'no/folder/r.jsonl' cannot be written"),
        (("ingest", "photos", "--collection", "a-b"), "is not a collection name"),
        (("ingest", "photos", "--uri", "store"), "neither a Milvus Lite store"),
        (("ingest", "photos", "--uri", "no/folder/x.db"), "make it first"),
        (("ingest", "photos", "--source-name", b"\xff".decode(errors="surrogateescape")), "UTF-8"),
        (("search",), "the query is empty"),
        (
            ("search", "nothing.jpg"),
            "there is no file 'nothing.jpg'; to search by a product id, write --product nothing.jpg",
        ),
        (("search", "photos"), "cannot be read: Is a directory"),
        (("search", "--product", "x", "--where", "price ~ 5"), "was not understood"),
        (("search", "--product", "x", "--where", "price < " + "9" * 400), "Milvus cannot store such a value"),
        (("search", "--product", "x", "--limit", "0"), "limit 0 is not between 1 and 1000"),
        (("search", "--product", "x"), "no collection 'products'"),
        (("search", "--product", "x", "--sheet", "no/folder/s.png"), "does not exist"),
        (("search", "--product", "x", "--sheet", "s.doc"), "should end in .png"),
    ],
)
def test_invalid_usage_ends_with_status_2_and_a_message(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    if ("photos" in arguments and arguments[0] == "ingest") or arguments[-1] == "photos":
        (tmp_path / "photos" / "m1").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "m1" / "1.png")
    output = " ".join(fails(2, *arguments, cwd=tmp_path).split())
    assert message in output
    assert not (tmp_path / "lookalike.db").exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://127.0.0.1:99999", "http://127.0.0.1:abc"])
def test_an_unreachable_milvus_ends_with_status_1(shop: Path, uri: str) -> None:
    assert f"Milvus at {uri} does not answer" in fails(1, "info", cwd=shop, MILVUS_URI=uri)


def test_another_encoder_for_the_same_collection_is_refused(shop: Path, tmp_path: Path) -> None:
    message = fails(1, "ingest", "photos", "--encoder", "efficientnet-lite0", cwd=shop)
    assert "filled by 'pixels'" in message
    assert "lookalike reindex --encoder efficientnet-lite0" in message


def test_the_status_is_1_when_every_image_was_rejected(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_text("no image")
    done = lookalike("ingest", "photos", "--encoder", "pixels", cwd=tmp_path)
    assert done.returncode == 1
    assert b"stored 0, rejected 1" in done.stdout


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_stored_and_the_next_one_stores_the_rest(shop: Path, tmp_path: Path) -> None:
    command = process_command("ingest", shop / "photos", *LAYOUT, "--format", "json", "--batch-size", 4)
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=process_environment()
    )
    wait_for_rows(tmp_path / "lookalike.db")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)

    assert running.returncode == 130, err
    assert b"Interrupted" in err
    stored = json.loads(out)["stored"]
    info = json.loads(lookalike("info", "--format", "json", cwd=tmp_path).stdout)
    assert 0 < stored <= info["images"] < 192
    assert lookalike("ingest", shop / "photos", *LAYOUT, cwd=tmp_path).returncode == 0
    assert json.loads(lookalike("info", "--format", "json", cwd=tmp_path).stdout)["images"] == 192


def test_a_mistyped_command_names_the_nearest_one(tmp_path: Path) -> None:
    assert "No such command 'serch'. Did you mean 'search'?" in fails(2, "serch", cwd=tmp_path)
    assert "No such command 'xyzzy'. There are ingest, search," in fails(2, "xyzzy", cwd=tmp_path)


def test_search_takes_a_url_and_explains_what_is_no_file(shop: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(shop / "queries"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/red-plain-mug.jpg"
        assert "if you trust it, add --allow-private-urls" in fails(2, "search", url, cwd=shop)
        found = lookalike("search", url, "--allow-private-urls", "--format", "ids", "--limit", "1", cwd=shop)
        server.shutdown()
        thread.join()
    by_path = lookalike("search", "queries/red-plain-mug.jpg", "--format", "ids", "--limit", "1", cwd=shop)
    assert found.stdout == by_path.stdout != b""
    assert "there is no file 'red-plain-mug'; to search by a product id, write --product red-plain-mug" in fails(
        2, "search", "red-plain-mug", cwd=shop
    )

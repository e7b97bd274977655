"""The commands that fill and maintain a collection, as people and cron use them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from catalogue import draw
from command import ROOT, fails, lookalike, process_command, process_environment

PIXELS = ("--encoder", "pixels")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten products of two images in ./photos, in the collection."""
    for n in range(20):
        draw(tmp_path / "photos" / f"p{n // 2}" / f"{n}.png", n)
    done = lookalike("ingest", "photos", *PIXELS, cwd=tmp_path)
    assert b"stored 20, rejected 0: 20 new" in done.stdout, done.stderr
    return tmp_path


def run(*arguments: object, cwd: Path) -> dict[str, object]:
    """Run a command that succeeds; return what it prints as JSON."""
    done = lookalike(*arguments, "--format", "json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    output: dict[str, object] = json.loads(done.stdout)
    return output


def test_a_run_without_changes_does_not_import_torch(shop: Path) -> None:
    probe = "import sys\nfrom lookalike.cli import main\ntry: main(['ingest', 'photos'])\n"
    probe += "except SystemExit as end: print(end.code)\n"
    probe += "print(*({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=shop, env=process_environment(), capture_output=True)
    assert b"20 unchanged" in done.stdout
    assert done.stdout.splitlines()[-2:] == [b"0", b""], done.stderr


def test_a_dry_run_of_a_first_ingest_creates_no_store(shop: Path) -> None:
    summary = run("ingest", "photos", "--uri", "other.db", "--dry-run", cwd=shop)
    assert (summary["new"], summary["stored"], summary["dry_run"]) == (20, 20, True)
    assert not (shop / "other.db").exists()


def test_prune_past_its_limit_exits_with_status_3(shop: Path) -> None:
    for n in range(10):
        (shop / "photos" / f"p{n // 2}" / f"{n}.png").unlink()
    done = lookalike("ingest", "photos", "--prune", cwd=shop)
    assert done.returncode == 3
    assert b"would remove 10 of the 20 rows of this source" in done.stderr
    assert b"10 unchanged, 0 removed" in done.stdout
    assert run("ingest", "photos", "--prune", "--max-removals", "10", cwd=shop)["removed"] == 10


def test_an_empty_folder_deletes_nothing_without_a_limit_of_100_percent(shop: Path) -> None:
    for photo in shop.rglob("*.png"):
        photo.unlink()
    assert "holds no images" in fails(2, "ingest", "photos", "--prune", cwd=shop)
    assert run("ingest", "photos", "--prune", "--max-removals", "100%", cwd=shop)["removed"] == 20


def test_too_many_rejections_exit_with_status_3_and_prune_nothing(shop: Path) -> None:
    (shop / "photos" / "p0" / "0.png").unlink()
    for n in range(5):
        (shop / "photos" / f"bad{n}.jpg").write_text("no image")
    done = lookalike("ingest", "photos", "--prune", "--max-rejected", "4", "--report", "r.jsonl", cwd=shop)
    assert done.returncode == 3
    assert b"5 of 24 images were rejected, more than --max-rejected 4" in done.stderr
    events = [json.loads(line)["event"] for line in (shop / "r.jsonl").read_text().splitlines()]
    assert events == 5 * ["rejected"]
    done = lookalike("ingest", "photos", "--prune", "--max-rejected", "50%", cwd=shop)
    assert done.returncode == 0
    assert b"1 removed" in done.stdout


def test_ingest_reads_json_lines_from_standard_input(shop: Path) -> None:
    rows = [{"product_id": "x", "image": f"photos/p0/{n}.png", "price": n} for n in range(2)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    arguments = ("ingest", "-", "--source-name", "pipe", "--field", "price:int", "--format", "json")
    first = json.loads(lookalike(*arguments, cwd=shop, stdin=lines).stdout)
    second = json.loads(lookalike(*arguments, "--prune", cwd=shop, stdin=lines).stdout)
    assert (first["new"], first["embedded"], first["encoder"]) == (2, 0, "pixels")
    assert (second["unchanged"], second["removed"]) == (2, 0)
    assert "standard input, which is empty" in fails(2, *arguments, cwd=shop)
    assert "--watch cannot read standard input again" in fails(2, *arguments, "--watch", "1", cwd=shop)
    (shop / "c.jsonl").write_bytes(lines)
    assert "is the source itself" in fails(2, "ingest", "c.jsonl", "--report", "c.jsonl", cwd=shop)
    assert (shop / "c.jsonl").read_bytes() == lines


def test_a_declared_column_that_cannot_be_indexed_is_in_the_report(shop: Path) -> None:
    run("ingest", "photos", "--field", "price:float", "--report", "r.jsonl", cwd=shop)
    [remark] = [json.loads(line) for line in (shop / "r.jsonl").read_text().splitlines()]
    assert remark["event"] == "remark"
    assert "column price is not indexed: Milvus at ./lookalike.db refused create_index" in remark["text"]


@pytest.mark.slow
def test_reindex_lists_versions_and_rolls_back(shop: Path) -> None:
    tiny_clip = str(ROOT / "tests" / "tiny_clip")
    moved = run("reindex", "--encoder", tiny_clip, cwd=shop)
    assert (moved["stored"], moved["rejected"]) == (20, 0)
    listed = run("versions", cwd=shop)["versions"]
    assert isinstance(listed, list)
    assert [(v["name"], v["live"], v["encoder"], v["images"]) for v in listed] == [
        (moved["before"], False, "pixels", 20),
        (moved["after"], True, tiny_clip, 20),
    ]
    assert run("ingest", "photos", cwd=shop)["encoder"] == tiny_clip
    assert b"nothing to do" in lookalike("reindex", "--encoder", tiny_clip, cwd=shop).stdout
    assert run("rollback", cwd=shop)["after"] == moved["before"]
    assert run("rollback", cwd=shop)["after"] == moved["after"]
    assert run("rollback", "--to", moved["before"], cwd=shop)["after"] == moved["before"]
    assert "is live" in fails(2, "versions", "--drop", str(moved["before"]), cwd=shop)
    assert lookalike("versions", "--drop", str(moved["after"]), cwd=shop).stdout.count(b"products__v") == 1
    assert "no version of 'products' that was live before" in fails(2, "rollback", cwd=shop)
    assert "is a version; name the collection" in fails(2, "rollback", "-c", moved["before"], cwd=shop)


def test_delete_by_id_and_by_condition(shop: Path) -> None:
    assert run("delete", "--product", "p1", "--product", "p2", "--dry-run", cwd=shop)["removed"] == 4
    assert run("delete", "--yes", "--product", "p1", "--product", "p2", cwd=shop) == {
        "removed": 4,
        "products": 2,
        "dry_run": False,
    }
    assert run("delete", "--yes", "--where", 'product_id in ["p3", "p4"]', "--product", "p3", cwd=shop)["removed"] == 2
    assert run("delete", "--yes", "--where", "product_id != p5", cwd=shop)["removed"] == 12
    assert run("info", cwd=shop)["images"] == 2
    assert "nothing to delete" in fails(2, "delete", cwd=shop)


def test_delete_without_a_terminal_needs_to_be_told(shop: Path) -> None:
    assert "Delete 2 images of 1 products? There is no terminal to ask at: add --yes" in fails(
        2, "delete", "--product", "p1", cwd=shop
    )
    assert "no product 'nope' in 'products'; nothing was deleted" in fails(
        2, "delete", "--yes", "--product", "p1", "--product", "nope", cwd=shop
    )
    assert "no product has a column 'categry'" in fails(2, "delete", "--yes", "--where", "categry = mug", cwd=shop)
    assert run("info", cwd=shop)["images"] == 20


def test_the_suffix_of_an_export_says_its_format(shop: Path) -> None:
    (shop / "photos" / "p0" / "0.json").write_text('{"title": "a \\"mug\\"", "tags": ["red", "new"], "price": 5}')
    run("ingest", "photos", cwd=shop)
    assert run("export", "shop.csv", cwd=shop)["exported"] == 20
    with (shop / "shop.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert sorted(rows[0]) == ["image", "image_id", "price", "product_id", "source", "tags", "title"]
    titles = {row["title"]: (row["product_id"], row["price"], row["tags"]) for row in rows}
    assert titles['a "mug"'] == ("p0", "5", '["red", "new"]')
    assert run("export", "shop.jsonl", cwd=shop)["exported"] == 20
    lines = [json.loads(line) for line in (shop / "shop.jsonl").read_text().splitlines()]
    assert {line["product_id"] for line in lines} == {f"p{n}" for n in range(10)}
    assert [line["metadata"]["price"] for line in lines if "price" in line["metadata"]] == [5]
    message = fails(2, "export", "shop.xlsx", cwd=shop)
    assert "'shop.xlsx' ends in none of .parquet, .csv, .jsonl" in message
    assert not list(shop.glob("*.unfinished"))


def test_a_collection_is_exported_and_imported_and_its_duplicates_are_found(shop: Path) -> None:
    os.link(shop / "photos" / "p0" / "0.png", shop / "photos" / "p9" / "copy.png")
    run("ingest", "photos", cwd=shop)
    duplicates = run("duplicates", "--threshold", "1", "--sheet", "d.png", cwd=shop)
    assert isinstance(duplicates["groups"], list)
    assert [[hit["product_id"] for hit in group["images"]] for group in duplicates["groups"]] == [["p0", "p9"]]
    assert (shop / "d.png").exists()
    assert run("export", "x.parquet", cwd=shop)["exported"] == 21
    assert run("import", "x.parquet", "--collection", "copy", cwd=shop)["imported"] == 21
    assert run("info", "--collection", "copy", cwd=shop)["images"] == 21
    assert "no Parquet file" in fails(2, "import", "photos/p0/0.png", cwd=shop)


def test_watch_follows_the_catalogue_prints_only_changes_and_ends_on_sigterm(shop: Path) -> None:
    running = subprocess.Popen(
        process_command("ingest", "photos", "--watch", "1", "--prune", "--report", "r.jsonl"),
        cwd=shop,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout
    assert b"20 unchanged" in running.stdout.readline()
    (shop / "photos").rename(shop / "unmounted")
    time.sleep(2)
    (shop / "unmounted").rename(shop / "photos")
    draw(shop / "photos" / "p3" / "new.png", 77)
    assert b"1 new" in running.stdout.readline()
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert not out
    assert b"Trying again in 1 s" in err
    assert json.loads((shop / "r.jsonl").read_text().splitlines()[-1])["event"] == "new"

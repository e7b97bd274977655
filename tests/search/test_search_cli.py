"""`lookalike search` and its relatives: several images in one query, formats, tables that fit the terminal."""

import csv
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from catalogue import draw
from command import fails, lookalike, process_command, process_environment
from PIL import Image
from rich.cells import cell_len

WIDE = "青いチェックのシャツ"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten products of two images, with metadata that a table, CSV and a spreadsheet find hard."""
    folder = tmp_path_factory.mktemp("shop")
    rows = []
    for n in range(20):
        draw(folder / "photos" / f"{n}.png", 12 * n)
        rows.append(
            {
                "product_id": f"product-with-a-long-id-{n // 2}",
                "image": f"photos/{n}.png",
                "title": f'"{WIDE}", size {n // 2}',
                "score": -5,
                "formula": "=1+1" if n < 2 else "none",
                "tags": ["red", "new"],
            }
        )
    (folder / "shop.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = lookalike("ingest", "shop.jsonl", "--encoder", "pixels", cwd=folder)
    assert b"stored 20" in done.stdout, done.stderr
    return folder


def ids(*arguments: object, cwd: Path, stdin: bytes = b"") -> list[str]:
    done = lookalike("search", *arguments, "--format", "ids", cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().split()


def test_several_images_make_one_query(shop: Path) -> None:
    first, last = "photos/0.png", "photos/19.png"
    both = json.loads(lookalike("search", first, last, "--json", cwd=shop).stdout)["hits"]
    alone = json.loads(lookalike("search", first, "--json", cwd=shop).stdout)["hits"]
    assert len({hit["product_id"] for hit in both}) == len(both) == 10
    assert [hit["score"] for hit in both] != [hit["score"] for hit in alone]
    content = (shop / last).read_bytes()
    assert ids(first, "-", cwd=shop, stdin=content) == [hit["product_id"] for hit in both]
    mixed = ids(first, last, "--product", "product-with-a-long-id-5", cwd=shop)
    assert len(mixed) == 9


def test_an_image_that_cannot_be_read_is_named(shop: Path) -> None:
    (shop / "bad.jpg").write_text("no image")
    assert "'bad.jpg': not an image" in fails(2, "search", "photos/0.png", "bad.jpg", cwd=shop)
    assert "'bad.jpg': not an image" in fails(2, "search", "bad.jpg", cwd=shop)
    assert "standard input: " in fails(2, "search", "photos/0.png", "-", cwd=shop)
    assert "there is no file 'no.jpg'" in fails(2, "search", "photos/0.png", "no.jpg", cwd=shop)
    assert "write - only once" in fails(2, "search", "-", "-", cwd=shop)
    assert "33 parts are too many" in fails(2, "search", *["photos/0.png"] * 33, cwd=shop)


def test_a_sheet_shows_all_images_of_the_query(shop: Path) -> None:
    for count in (1, 2, 5):
        images = [f"photos/{4 * n}.png" for n in range(count)]
        assert lookalike("search", *images, "--sheet", "sheet.png", cwd=shop).returncode == 0
        with Image.open(shop / "sheet.png") as sheet:
            tile = sheet.convert("RGB").crop((16, 16, 216, 216))
        shown = {colour for _, colour in tile.getcolors(40_000) or ()}
        for image in images:
            assert Image.open(shop / image).convert("RGB").getpixel((9, 9)) in shown, image


def test_k_and_n_are_short_for_limit_and_json_for_format_json(shop: Path) -> None:
    query = ("search", "photos/0.png")
    for limit in ("-k", "-n", "--limit"):
        assert len(ids("photos/0.png", limit, 3, cwd=shop)) == 3
    long, short = (json.loads(lookalike(*query, *form, cwd=shop).stdout) for form in (["--format", "json"], ["--json"]))
    assert {**long, "took_ms": 0} == {**short, "took_ms": 0}
    assert lookalike(*query, "--json", "--format", "json", cwd=shop).returncode == 0
    assert "--json and --format ids contradict" in fails(2, *query, "--json", "--format", "ids", cwd=shop)
    assert "--json and --format table contradict" in fails(2, *query, "--format", "table", "--json", cwd=shop)


@pytest.mark.parametrize(
    "command",
    [
        ("search", "photos/0.png"),
        ("info",),
        ("duplicates",),
        ("versions",),
        ("encoders",),
        ("ingest", "shop.jsonl"),
        ("ingest", "shop.jsonl", "--dry-run"),
        ("delete", "--product", "product-with-a-long-id-1", "--dry-run"),
        ("export", "out.csv"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_every_command_takes_json(shop: Path, command: tuple[str, ...]) -> None:
    json.loads(lookalike(*command, "--json", cwd=shop).stdout)


def test_csv_has_a_header_and_changes_no_value(shop: Path) -> None:
    done = lookalike("search", "photos/0.png", "--format", "csv", cwd=shop)
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    hits = json.loads(lookalike("search", "photos/0.png", "--json", cwd=shop).stdout)["hits"]
    assert [*rows[0]] == [
        *("product_id", "score", "image_id", "image"),
        *("formula", "metadata.score", "tags", "title"),
    ]
    assert [(row["product_id"], float(row["score"]), row["title"]) for row in rows] == [
        (hit["product_id"], hit["score"], hit["metadata"]["title"]) for hit in hits
    ]
    assert rows[0]["formula"] == "=1+1"
    assert (rows[0]["tags"], rows[0]["metadata.score"]) == ('["red", "new"]', "-5")
    assert b"1 cell may start a formula in a spreadsheet" in done.stderr
    nothing = ("--min-score", "1", "--where", "formula = none")
    none = lookalike("search", "photos/0.png", *nothing, "--format", "csv", cwd=shop)
    assert (none.stdout, none.stderr) == (b"product_id,score,image_id,image\n", b"")


def test_json_lines_have_a_hit_a_line(shop: Path) -> None:
    lines = lookalike("search", "photos/0.png", "--format", "jsonl", cwd=shop).stdout.splitlines()
    hits = json.loads(lookalike("search", "photos/0.png", "--json", cwd=shop).stdout)["hits"]
    assert [json.loads(line) for line in lines] == hits


def test_duplicates_versions_and_encoders_are_printed_as_csv_and_json_lines(shop: Path) -> None:
    command = ("duplicates", "--threshold", "0.9")
    groups = json.loads(lookalike(*command, "--json", cwd=shop).stdout)["groups"]
    images = [(number, hit["image_id"]) for number, group in enumerate(groups, 1) for hit in group["images"]]
    assert images
    lines = [json.loads(line) for line in lookalike(*command, "--format", "jsonl", cwd=shop).stdout.splitlines()]
    assert [(line["group"], line["image_id"]) for line in lines] == images
    rows = list(csv.DictReader(lookalike(*command, "--format", "csv", cwd=shop).stdout.decode().splitlines()))
    assert [(int(row["group"]), row["image_id"]) for row in rows] == images
    for verb, column in (("versions", "name"), ("encoders", "name")):
        lines = [json.loads(line) for line in lookalike(verb, "--format", "jsonl", cwd=shop).stdout.splitlines()]
        rows = list(csv.DictReader(lookalike(verb, "--format", "csv", cwd=shop).stdout.decode().splitlines()))
        assert [line[column] for line in lines] == [row[column] for row in rows] != []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_fits_the_terminal(shop: Path, width: int) -> None:
    lines = run_at_terminal("search", "photos/0.png", cwd=shop, width=width)
    assert max(map(cell_len, lines)) <= width
    assert ("\n".join(lines).count("--format json") == 1) == (width < 200)
    piped = lookalike("search", "photos/0.png", cwd=shop).stdout.decode()
    assert all(text in piped for text in ("product-with-a-long-id-0", f'"{WIDE}", size 0', "photos/0.png"))


def run_at_terminal(*arguments: object, cwd: Path, width: int) -> list[str]:
    """Run a command whose output is a terminal; return its lines without colours."""
    ours, theirs = pty.openpty()
    environment = {**process_environment(), "COLUMNS": str(width), "TERM": "dumb", "NO_COLOR": "1"}
    running = subprocess.Popen(
        process_command(*arguments), cwd=cwd, env=environment, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65_536):
            written += chunk
    except OSError:  # how Linux ends a terminal that nobody writes to any more
        pass
    os.close(ours)
    assert running.wait(60) == 0
    return written.decode().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()

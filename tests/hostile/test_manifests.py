"""A manifest of a million rows, nearly all of them hostile: each is rejected with its reason, in bounded memory."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile.attacked import draw_png
from hostile.conftest import Outcome
from hostile.guarded_process import Ended, Internet, run_guarded

AREA = "Manifests"
ROWS = 1_000_000
MEGABYTE = 2**20
MEMORY = 700 * MEGABYTE
SECONDS = 600
PUBLIC = "93.184.215.14"
INTERNET = Internet({"two.example": [PUBLIC, "10.0.0.1"]})

Row = Callable[[int], str]


def row(image: str, product: str = "p{n}") -> Row:
    """Return what writes a row as JSON; {n} is its number."""
    text = json.dumps({"product_id": product, "image": image})
    return lambda number: text.replace("{n}", str(number))


# How often a kind comes among 1,000 rows, the row, and why it is rejected.
KINDS: dict[str, tuple[int, Row, str]] = {
    "no product_id": (240, row("{n}.jpg", ""), "no product_id that can be used"),
    "no image": (100, row(""), "has no image"),
    "not JSON": (200, lambda number: f"{{'product_id': {number}}}", "it is not JSON"),
    "not an object": (100, lambda number: f"[{number}]", "it is not a JSON object"),
    "brackets of depth 1,000": (1, lambda _: "[" * 1_000, "it is not JSON"),
    "NUL in the image": (150, row("a\0{n}.jpg"), "NUL"),
    "NUL in a file:// URI": (50, row("file:///a%00{n}.jpg"), "NUL"),
    "NUL in the product_id": (10, row("{n}.jpg", "a\0{n}"), "No such file"),
    "a BOM in the path": (20, row("\ufeff{n}.jpg"), "No such file"),
    "line breaks and bidirectional characters": (20, row("\u202e\r\n{n}.gpj"), "No such file"),
    "a path of 5,000 characters": (5, row("a" * 5_000), "File name too long"),
    "traversal to a file that is no image": (10, row("../../../../../../../../../../etc/passwd"), "not an image"),
    "traversal to nothing": (20, row("../../{n}/../../x.jpg"), "No such file"),
    "a full path": (10, row("/etc/passwd"), "not an image"),
    "file:// to a file that is no image": (10, row("file:///etc/passwd"), "not an image"),
    "file:// to nothing": (10, row("file://host.example/{n}.jpg"), "No such file"),
    "a device": (5, row("/dev/zero"), "not a regular file"),
    "memory of the process": (1, row("/proc/self/mem"), "cannot be read: Input/output error"),
    "loopback": (7, row("http://127.0.0.1:9/{n}.jpg"), "127.0.0.1, which is not a public address"),
    "link-local": (7, row("http://169.254.169.254/{n}"), "169.254.169.254, which is not a public address"),
    "IPv6-mapped": (7, row("http://[::ffff:127.0.0.1]:9/{n}"), "::ffff:7f00:1, which is not a public address"),
    "decimal": (6, row("http://2130706433:9/{n}"), "127.0.0.1, which is not a public address"),
    "octal": (5, row("http://0177.0.0.1:9/{n}"), "127.0.0.1, which is not a public address"),
    "hexadecimal": (5, row("http://0x7f000001:9/{n}"), "127.0.0.1, which is not a public address"),
    "a name of two addresses": (1, row("http://two.example/{n}.jpg"), "10.0.0.1, which is not a public address"),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests") / "shop"
    folder.mkdir()
    for colour in ("red", "blue"):
        (folder / f"{colour}.png").write_bytes(draw_png(colour))
    (folder.parent / "outside.png").write_bytes(draw_png("green"))
    return folder


def rows() -> Iterator[str]:
    """Write a thousand times a row of each kind, as often as it comes; a good row is the first, and one the last."""
    makers = [make for count, make, _ in KINDS.values() for _ in range(count)]
    yield row("red.png", "first")(0)
    for number in range(ROWS - 3):
        yield makers[number % len(makers)](number)
    yield row("/proc/self/pagemap", "endless")(0)
    yield row("blue.png", "last")(0)


def ingest(shop: Path, manifest: str, *options: str) -> Ended:
    command = ("ingest", manifest, "--encoder", "pixels", "--report", "report.jsonl", "--json", "--no-progress")
    return run_guarded(*command, *options, cwd=shop, internet=INTERNET, timeout=2 * SECONDS)


def read_events(shop: Path) -> Iterator[dict[str, str]]:
    with (shop / "report.jsonl").open() as report:
        yield from map(json.loads, report)


def test_a_million_hostile_rows(shop: Path, outcome: Outcome) -> None:
    makers = [kind for kind, (count, _, _) in KINDS.items() for _ in range(count)]
    assert len(makers) == 1_000
    with (shop / "million.jsonl").open("w") as manifest:
        manifest.writelines(f"{line}\n" for line in rows())
    run = ingest(shop, "million.jsonl", "--uri", "million.db")
    summary = json.loads(run.stdout)
    assert (summary["stored"], summary["rejected"]) == (2, ROWS - 2), run.stderr
    assert run.report.peak < MEMORY
    assert run.seconds < SECONDS
    assert not run.report.dialled
    assert {*run.report.looked_up} == {"two.example"}
    expected = Counter[str]({"the file has": 1})
    for number in range(ROWS - 3):
        expected[KINDS[makers[number % len(makers)]][2]] += 1
    pattern = re.compile("|".join(map(re.escape, expected)))
    found = Counter[str]()
    for event in read_events(shop):
        if event["event"] == "rejected":
            reason = pattern.search(event["reason"])
            found[reason[0] if reason else event["reason"]] += 1
    assert found == expected
    memory = f"{run.report.peak // MEGABYTE} MB of memory at most"
    outcome(AREA, f"{ROWS:,} rows, {ROWS - 2:,} of them hostile", f"2 stored, all others rejected; {memory}")
    for kind, (_, _, reason) in KINDS.items():
        outcome(AREA, f"among a million rows: {kind}", f"rejected: “{reason}”; nothing is dialled")

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
from hostile.guarded_process import Ended, Internet, guarded_service, run_guarded
from serving import client

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
    for kind, (_, _, why) in KINDS.items():
        outcome(AREA, f"among a million rows: {kind}", f"rejected: “{why}”; nothing is dialled")


SECRET = "a-secret-of-the-environment"


def test_a_manifest_may_read_images_anywhere_and_shows_nothing_else(
    shop: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest is the shop's own file: what it names is read, and used if it is an image; no byte of it is shown."""
    monkeypatch.setenv("A_SECRET", SECRET)
    (shop / "link.png").symlink_to("/etc/passwd")
    (shop / "loop.png").symlink_to("loop.png")
    os.mkfifo(shop / "fifo.png")
    images = {"../outside.png", str(shop / ".." / "outside.png"), f"file://{shop.parent}/outside.png"}
    others = {"/etc/passwd", "../../../../../../../etc/passwd", "file:///etc/passwd", "FILE:///etc/passwd", "link.png"}
    others |= {"loop.png", "fifo.png", "/dev/stdin", "/dev/zero", "/proc/self/environ", "/proc/self/mem", "/", "."}
    manifest = shop / "anywhere.jsonl"
    lines = [{"product_id": f"p{number}", "image": image} for number, image in enumerate([*images, *others])]
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = ingest(shop, "anywhere.jsonl", "--uri", "anywhere.db")
    summary = json.loads(run.stdout)
    assert (summary["stored"], summary["rejected"]) == (len(images), len(others)), run.stderr
    shown = run.stdout.decode() + run.stderr + (shop / "report.jsonl").read_text()
    assert "root:" not in shown
    assert SECRET not in shown
    assert run.seconds < 60
    outcome(
        AREA, "traversal, full paths, file:// and links to an image outside the folder", "read: it may name any image"
    )
    outcome(
        AREA,
        "traversal, full paths, file:// and links to other files; pipes, devices, /proc, folders, links in a circle",
        "rejected at once; nothing of their content is shown",
    )


def test_the_service_shows_no_file_that_took_the_place_of_an_image(shop: Path, outcome: Outcome) -> None:
    (shop / "replaced.png").write_bytes(draw_png("yellow"))
    (shop / "replaced.jsonl").write_text('{"product_id": "p", "image": "replaced.png"}\n')
    assert ingest(shop, "replaced.jsonl", "--uri", "replaced.db").status == 0
    with guarded_service(shop, "--uri", "replaced.db") as child, client(child.address) as http:
        [image] = http.get("/products/p").json()["images"]
        (shop / "replaced.png").unlink()
        (shop / "replaced.png").symlink_to("/etc/passwd")
        for url in (image["url"], f"{image['url']}?size=64"):
            response = http.get(url)
            assert response.status_code == 404, response.text
            assert "root:" not in response.text
    outcome(AREA, "a link to /etc/passwd takes the place of a stored image", "the service answers 404")


def test_a_csv_with_a_bom_nul_and_quotes_that_never_end(shop: Path, outcome: Outcome) -> None:
    good, cells = "red.png", ("a\0.png", "\ufeffred.png", "x" * 200_000, "../../\0/etc/passwd")
    text = "\ufeffproduct_id,image\n" + f"a,{good}\n" + "".join(f"b,{cell}\n" for cell in cells) + 'c,"never ends\n' * 3
    (shop / "quotes.csv").write_text(text)
    run = ingest(shop, "quotes.csv", "--uri", "quotes.db")
    assert json.loads(run.stdout)["stored"] == 1, run.stderr
    reasons = [event["reason"] for event in read_events(shop) if event["event"] == "rejected"]
    assert len(reasons) >= len(cells)
    for encoding in ("utf-16", "utf-32", "latin-1"):
        (shop / "encoded.csv").write_text("product_id,image\nä,red.png\n", encoding=encoding)
        run = ingest(shop, "encoded.csv", "--uri", "encoded.db")
        assert run.status == 2
        assert "UTF-8" in run.stderr, run.stderr
    assert not (shop / "encoded.db").exists()
    outcome(AREA, "a CSV with a BOM, NUL, a cell of 200 kB, and quotes that never end", "its good row is stored")
    outcome(AREA, "a CSV in UTF-16, UTF-32 or Latin-1", "refused: it is not UTF-8; nothing is created")

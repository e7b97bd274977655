"""Images that unpack to something huge, end early, or are two files at once: in an ingest, and in the service."""

import base64
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from command import process_command, process_environment
from hostile import bombs
from hostile.attacked import Child, child_service, draw_products
from hostile.conftest import Outcome
from serving import client

AREA = "Images"
GIGABYTE = 2**30
SECONDS = 60
"""For one image, on a machine that does much else; alone it is a second, or three for the largest images."""

KINDS = {
    "pixels": (bombs.pixel_bombs, "60,000 × 60,000 pixels in a few bytes", False),
    "frames": (bombs.frame_bombs, "100,000 frames, and pages in a circle", True),
    "metadata": (bombs.metadata_bombs, "text, profiles, EXIF and XMP that inflate to 1 GB, or say so", None),
    "largest": (bombs.largest, "64 million pixels, the limit, in a few kB", True),
    "truncated": (bombs.truncated, "files cut in half", False),
    "polyglot": (bombs.polyglots, "an image that is HTML, JavaScript or ZIP too", True),
    "disguised": (bombs.disguised, "HTML, SVG, ZIP, PDF, EPS, a program or a pickle, named .png", False),
}
"""By its kind: the files, the attack in words, and whether they are read; None: some are."""


class Bomb(NamedTuple):
    """One file, and where it is in the catalogue."""

    kind: str
    name: str
    content: bytes
    path: str


@pytest.fixture(scope="module")
def files() -> list[Bomb]:
    suffixes = {"JPEG": ".jpg", "GIF": ".gif", "TIFF": ".tif", "WebP": ".webp", "WEBP": ".webp", "AVIF": ".avif"}
    return [
        Bomb(kind, name, content, f"{kind}/{number}{suffixes.get(re.split('[ ,]', name)[0], '.png')}")
        for kind, (make, _, _) in KINDS.items()
        for number, (name, content) in enumerate(make())
    ]


class Run(NamedTuple):
    """What an ingest of all the files came to."""

    summary: dict[str, int]
    rejected: dict[str, str]
    peak: int
    errors: str


@pytest.fixture(scope="module")
def folder(files: list[Bomb], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for bomb in files:
        (folder / "photos" / bomb.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / bomb.path).write_bytes(bomb.content)
    for suffix, image_format in ((".jpg", "PNG"), (".png", "JPEG"), (".gif", "WEBP")):
        (folder / "photos" / "renamed").mkdir(exist_ok=True)
        (folder / "photos" / "renamed" / f"1{suffix}").write_bytes(bombs.small(image_format))
    draw_products(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    options = ("--layout", "{product_id}/{image}", "--encoder", "pixels", "--report", "report.jsonl", "--json")
    process = subprocess.Popen(
        process_command("ingest", "photos", *options),
        cwd=folder,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peaks: list[int] = []
    watcher = threading.Thread(target=watch, args=(process, peaks))
    watcher.start()
    out, errors = process.communicate(timeout=300)
    watcher.join()
    assert process.returncode in (0, 3), errors
    lines = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    rejected = {str(line["image"]): str(line["reason"]) for line in lines if line.get("reason")}
    return Run(json.loads(out), rejected, max(peaks), errors)


def watch(process: "subprocess.Popen[str]", peaks: list[int]) -> None:
    """Note the peak memory of a process and of its decode processes, until it ends."""
    while process.poll() is None:
        peaks.append(sum(map(peak_memory, [process.pid, *children(process.pid)])))
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def peak_memory(pid: int) -> int:
    """Return the most bytes that a process has had resident since its start, or since `forget_peak`."""
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else 0


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.parametrize("kind", KINDS)
def test_ingest_reads_or_rejects_each_image(
    kind: str, files: list[Bomb], folder: Path, run: Run, outcome: Outcome
) -> None:
    _, attack, is_read = KINDS[kind]
    mine = [bomb for bomb in files if bomb.kind == kind]
    reasons = {
        bomb.name: next((why for image, why in run.rejected.items() if image.endswith(f"photos/{bomb.path}")), "")
        for bomb in mine
    }
    if is_read is not None:
        assert [name for name, reason in reasons.items() if bool(reason) is is_read] == []
    if kind == "pixels":
        # Pillow cannot read the header of an AVIF of another size.
        assert all("pixels, the limit" in reason for name, reason in reasons.items() if name != "AVIF")
    rejected = sum(map(bool, reasons.values()))
    formats = ", ".join(bomb.name for bomb in mine)
    outcome(
        f"{AREA}: ingest",
        f"{attack} ({formats})",
        f"{len(mine) - rejected} read, {rejected} rejected with the reason; the run goes on",
    )


def test_ingest_stays_within_its_memory_and_says_nothing_else(run: Run, files: list[Bomb], outcome: Outcome) -> None:
    renamed, products = 3, 3
    assert run.summary["rejected"] + run.summary["new"] == len(files) + renamed + products
    # Two images may be decoded at once within the budget of pixels; an image of the worst mode takes 0.8 GB.
    assert run.peak < 2.5 * GIGABYTE
    for noise in ("Traceback", "Warning", "warn("):
        assert noise not in run.errors
    outcome(
        f"{AREA}: ingest",
        "all these files in one catalogue",
        f"the run ends with all other images stored; at most {run.peak / GIGABYTE:.1f} GB of memory",
    )
    outcome(f"{AREA}: ingest", "a PNG named .jpg, a JPEG named .png, a WebP named .gif", "read by their content")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("service")
    draw_products(folder / "photos")
    command = process_command("ingest", "photos", "--layout", "{product_id}/{image}", "--encoder", "pixels")
    subprocess.run(command, cwd=folder, env=process_environment(), check=True, capture_output=True)
    with child_service(folder) as child:
        yield child


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_reads_or_refuses_each_image(kind: str, files: list[Bomb], service: Child, outcome: Outcome) -> None:
    _, attack, is_read = KINDS[kind]
    before, slowest, statuses = service.memory(), 0.0, []
    forget_peak(service.process.pid)
    with client(service.address) as http:
        for bomb in files:
            if bomb.kind != kind:
                continue
            started = time.monotonic()
            response = http.post("/search", files={"image": bomb.content}, timeout=SECONDS)
            slowest = max(slowest, time.monotonic() - started)
            assert response.status_code in (200, 422), (bomb.name, response.text)
            if response.status_code == 422:
                assert re.search("pixels, the limit|image is broken|not an image", response.json()["detail"]), bomb.name
            statuses.append(response.status_code)
            assert http.get("/health").status_code == 200
    if is_read is not None:
        assert set(statuses) == {200 if is_read else 422}
    peak = peak_memory(service.process.pid) - before
    assert slowest < SECONDS
    assert peak < 1.2 * GIGABYTE
    answers = f"{statuses.count(200)} read, {statuses.count(422)} refused (422)"
    outcome(f"{AREA}: service", attack, f"{answers}; at most {max(peak, 0) / GIGABYTE:.1f} GB more memory for a moment")


def test_large_images_at_once_wait_for_each_other(files: list[Bomb], service: Child, outcome: Outcome) -> None:
    [content] = [bomb.content for bomb in files if (bomb.kind, bomb.name) == ("largest", "PNG, RGBA")]
    before = service.memory()
    forget_peak(service.process.pid)
    with client(service.address) as http, ThreadPoolExecutor(8) as threads:
        body = {"like": [{"image": base64.b64encode(content).decode()}] * 2}
        pending = [threads.submit(http.post, "/search", json=body, timeout=120) for _ in range(8)]
        statuses = {response.result().status_code for response in pending}
        assert http.get("/health").status_code == 200
    # Past the deadline of a request, the service answers 504.
    assert statuses <= {200, 503, 504}
    peak = peak_memory(service.process.pid) - before
    assert peak < 1.5 * GIGABYTE
    outcome(
        f"{AREA}: service",
        "16 images of 64 million pixels in 8 requests at once",
        f"decoded one after the other; at most {peak / GIGABYTE:.1f} GB more memory, and 504 past the deadline",
    )


def test_a_polyglot_is_shown_as_an_image_and_runs_nowhere(files: list[Bomb], service: Child, outcome: Outcome) -> None:
    with client(service.address) as http:
        for number, bomb in enumerate(bomb for bomb in files if bomb.kind == "polyglot"):
            body = {"images": [{"image": base64.b64encode(bomb.content).decode()}]}
            assert http.put(f"/products/polyglot-{number}", json=body).status_code == 200
            [image] = http.get(f"/products/polyglot-{number}").json()["images"]
            for size in ("", "?size=64"):
                shown = http.get(image["url"] + size)
                assert shown.headers["content-type"].startswith("image/")
                assert shown.headers["x-content-type-options"] == "nosniff"
                assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"
            assert b"evil" not in shown.content, "a thumbnail is drawn anew"
    outcome(f"{AREA}: service", KINDS["polyglot"][1], "sent as image/*, with nosniff and a sandbox: no browser runs it")

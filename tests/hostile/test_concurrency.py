"""Two runs, a run and a service, two services on one store. The first run is stopped at a write meanwhile."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx2
import pytest
from catalogue import draw
from command import lookalike, lookalike_process
from hostile.conftest import Outcome
from hostile.crash_at import Point, Running, pause
from hostile.kill_scenarios import Place
from serving import listening, service_for

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.schema.milvus.store import Store

AREA = "Two at once"
_numbers = count()


def ingest(place: Place, source: str) -> list[str]:
    options = ["--layout", "{product_id}/{image}", "--encoder", "pixels", "--batch-size", "4", "--no-progress"]
    return ["ingest", str(place.folder / source), "--source-name", source, *options, *place.address]


@pytest.fixture(params=["Milvus Lite", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Two sources of 15 photos each."""
    for n in range(30):
        draw(tmp_path / ("first" if n < 15 else "second") / f"p{n // 3}" / f"{n}.png", n)
    is_server = request.param == "server"
    uri = request.getfixturevalue("server") if is_server else str(tmp_path / "shop.db")
    return Place(tmp_path, uri, f"two_{next(_numbers)}" if is_server else "products")


@pytest.fixture
def first(place: Place) -> Iterator[Running]:
    """A run of the first source that has written eight rows and has not ended."""
    run = Running(ingest(place, "first"), place.folder, Point("before", "upsert", 3), pause)
    try:
        run.wait_until_paused()
        yield run
    finally:
        run.resume()
        assert run.wait().status == 0
        assert len([row for row in place.rows().values() if row.values[2] == "first"]) == 15


def test_a_second_run_of_the_same_source_is_refused(place: Place, first: Running, outcome: Outcome) -> None:
    refused = lookalike(*ingest(place, "first"), cwd=place.folder)
    assert refused.returncode == 1
    assert f"(process {first.pid}" in refused.stderr.decode()
    kind = "a server" if place.is_server else "Milvus Lite"
    outcome(AREA, f"a second run of the same source on {kind}", "refused; names the process of the first, which ends")


def test_others_work_beside_a_run_on_a_server_and_are_refused_on_milvus_lite(
    place: Place, first: Running, outcome: Outcome
) -> None:
    others = {
        "a run of another source": ingest(place, "second"),
        "a search": ["search", "--product", "p0", *place.address],
        "an export": ["export", "rows.jsonl", *place.address],
        "a rollback": ["rollback", *place.address],
    }
    for what, command in others.items():
        done = lookalike(*command, cwd=place.folder)
        message = done.stderr.decode()
        assert "Traceback" not in message
        if place.is_server:
            assert done.returncode == (2 if what == "a rollback" else 0), (what, message)
            outcome(AREA, f"{what} beside a run on a server", "works; the run ends with all its rows")
        else:
            assert done.returncode == 1, what
            assert f"is open in process {first.pid}" in message, message
            outcome(
                AREA,
                f"{what} beside a run on Milvus Lite",
                "refused; the message names the process that has it open; the run ends",
            )
    if not place.is_server:
        refused = lookalike_process("serve", "--port", "0", *place.address, cwd=place.folder)
        assert refused.returncode == 1, refused.stderr.decode()
        assert "Traceback" not in refused.stderr.decode()
        outcome(
            AREA,
            "a service beside a run on Milvus Lite",
            "refused; the message names the process that has it open; the run ends",
        )


def test_a_service_answers_while_a_run_writes_to_a_server(server: str, tmp_path: Path, outcome: Outcome) -> None:
    for n in range(30):
        draw(tmp_path / ("first" if n < 15 else "second") / f"p{n // 3}" / f"{n}.png", n)
    place = Place(tmp_path, server, f"two_{next(_numbers)}")
    assert lookalike(*ingest(place, "first"), cwd=tmp_path).returncode == 0
    with Store.open(server, collection=place.collection) as store:
        services = [service_for(store, PixelEncoder(), tmp_path / str(n)) for n in range(2)]
        with listening(services[0]) as one, listening(services[1]) as other:
            run = Running(ingest(place, "second"), tmp_path, Point("before", "upsert", 3), pause)
            run.wait_until_paused()
            for address in (one, other):
                _find(address, "p0")
            run.resume()
            assert run.wait().status == 0
            for address in (one, other):
                _find(address, "p9")
    assert len(place.rows()) == 30
    outcome(AREA, "two services and a run on one server", "all work; both services find what the run has written")


def test_a_second_service_on_milvus_lite_is_refused(tmp_path: Path, outcome: Outcome) -> None:
    for n in range(3):
        draw(tmp_path / "first" / "p0" / f"{n}.png", n)
    place = Place(tmp_path, str(tmp_path / "shop.db"), "products")
    assert lookalike(*ingest(place, "first"), cwd=tmp_path).returncode == 0
    with (
        Store.open(place.uri) as store,
        listening(service_for(store, PixelEncoder(), tmp_path / "uploads")) as address,
    ):
        refused = lookalike_process("serve", "--port", "0", *place.address, cwd=tmp_path)
        assert refused.returncode == 1, refused.stderr.decode()
        assert "Traceback" not in refused.stderr.decode()
        _find(address, "p0")
    outcome(AREA, "a second service on Milvus Lite", "refused with the reason; the first goes on answering")


def _find(address: str, product: str) -> None:
    answer = httpx2.post(f"{address}/search", json={"product_id": product}, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text

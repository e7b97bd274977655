"""Killed at every write, every move of the alias and every line of the report: nothing acknowledged is lost, no half
version is live, and the same command again completes the work."""

import json
import signal
from pathlib import Path

import pytest
from hostile.conftest import Outcome
from hostile.crash_at import Point, choose_points, run_until
from hostile.kill_scenarios import Place, Places, Scenario, Shop
from hostile.rows import Rows, are_between, are_same

from lookalike.schema.milvus.versions import Versions

SCENARIOS = ("ingest", "prune", "reindex", "import", "delete", "sources --rename", "move", "rollback", "drop")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(params=["Milvus Lite", "server"])
def store(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """Its name, and its address if it is a server."""
    return request.param, request.getfixturevalue("server") if request.param == "server" else None


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_command_loses_nothing_and_completes_when_it_is_run_again(
    name: str, shop: Shop, store: tuple[str, str | None], tmp_path: Path, outcome: Outcome
) -> None:
    scenario = shop.scenarios[name]
    kind, server = store
    places = Places(tmp_path, server, scenario)
    undisturbed = places.make()
    before = undisturbed.rows()
    done = run_until([*scenario.command(undisturbed), *undisturbed.address], undisturbed.folder)
    assert done.status == 0, done.output
    after = undisturbed.rows()
    points = choose_points(done.events, fewer=server is not None)
    for point in points:
        _kill(scenario, places.make(), point, (before, after))
    _record(outcome, scenario, kind, points)


def _kill(scenario: Scenario, place: Place, point: Point, states: tuple[Rows, Rows]) -> None:
    """Kill the command at a point, look at what is there, and run it again."""
    before, after = states
    command = scenario.command(place)
    killed = run_until([*command, *place.address], place.folder, point)
    where = f"{scenario.title} killed {point}: {killed.output}"
    assert killed.status == -signal.SIGKILL, where
    rows = place.rows()
    if scenario.is_whole:
        assert are_same(rows, before) or are_same(rows, after), where
    else:
        assert are_between(rows, before, after), where
        _check_report(place, rows, after, where)
    if scenario.keeps_images:
        assert {row.values[:2] for row in rows.values()} == {row.values[:2] for row in before.values()}, where
    place.run(*command, statuses=scenario.statuses)
    assert are_same(place.rows(), after), where
    with Versions(place.uri, collection=place.collection) as versions:
        assert sum(version.live for version in versions.all()) == 1, where


def _check_report(place: Place, rows: Rows, after: Rows, where: str) -> None:
    """Whatever the report says is done is done."""
    report = place.folder / "report.jsonl"
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    images = {row.values[1]: key for key, row in after.items()}
    stored = {images[line["image"]] for line in lines if line["event"] in ("new", "changed", "metadata")}
    assert all(are_same({key: rows[key]}, {key: after[key]}) for key in stored), where
    removed = {line["image"] for line in lines if line["event"] == "removed"}
    assert not (removed - images.keys()).intersection(row.values[1] for row in rows.values()), where


def _record(outcome: Outcome, scenario: Scenario, kind: str, points: list[Point]) -> None:
    state = "the old version or the new one answers, whole" if scenario.is_whole else "every acknowledged row is there"
    for event in dict.fromkeys(point.event for point in points):
        numbers = ", ".join(str(point) for point in points if point.event == event)
        outcome(
            "Killed processes",
            f"`{scenario.title}` on {kind}, SIGKILL {numbers.replace(f' {event}', '')} of `{event}`",
            f"{state}; the same command again gives the rows of an undisturbed run, vectors included",
        )


def test_a_killed_export_leaves_no_half_file(shop: Shop, tmp_path: Path, outcome: Outcome) -> None:
    places = Places(tmp_path, None, Scenario("export", lambda _: [], shop.scenarios["prune"].setup))
    place = places.make()
    command = ["export", "out.parquet", *place.address]
    (place.folder / "out.parquet").write_text("an earlier export")
    assert run_until(command, place.folder, Point("before", "rename", 1)).status == -signal.SIGKILL
    assert (place.folder / "out.parquet").read_text() == "an earlier export"
    assert run_until(command, place.folder, Point("after", "rename", 1)).status == -signal.SIGKILL
    copy = Place(place.folder, str(place.folder / "copy.db"), "products")
    copy.run("import", "out.parquet")
    assert are_same(copy.rows(), place.rows())
    assert not list(place.folder.glob("*.unfinished"))
    outcome(
        "Killed processes",
        "`export` on Milvus Lite, SIGKILL before and after the file gets its name",
        "the earlier file is whole, then the new one is; the next export writes over the unfinished one",
    )

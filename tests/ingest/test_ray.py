"""Ingest on a Ray cluster of two machines: the same rows as without it, also when workers are killed on the way."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, fails, lookalike_process
from killed_shop import Shop
from serving import until

HAS_RAY = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: make test-ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines with a CPU each, as far as Ray can tell."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A catalogue with twins, a broken image, and the rows that it makes without Ray."""
    folder = tmp_path_factory.mktemp("ray")
    shop = Shop(folder, str(folder / "ray.db"))
    shop.draw(range(400), shade=0)
    photos = folder / "photos"
    for n in range(40):
        (photos / f"p{n}" / "twin.png").write_bytes((photos / "p0" / "0.png").read_bytes())
    (photos / "p1" / "broken.png").write_bytes(b"no image")
    return shop


def workers(cluster: Any, title: str) -> list[int]:
    """The processes of this cluster that are at such work."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    told = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    found = (line.split(maxsplit=2) for line in told.splitlines())
    return [int(pid) for pid, parent, what in found if int(parent) in raylets and what.startswith(title)]


def kill_one(cluster: Any, title: str) -> None:
    found: list[int] = []

    def is_there() -> bool:
        found.extend(workers(cluster, title))
        return bool(found)

    until(is_there)
    os.kill(found[0], signal.SIGKILL)


@with_ray
def test_with_workers_killed_it_ends_as_if_it_had_run_here(shop: Shop, cluster: Any) -> None:
    here = shop.completed(shop.ingest("here", "--encoder", "pixels"))
    told = shop.folder / "report.jsonl"
    on_ray = ("--encoder", "pixels", "--engine", "ray", "--report", str(told), "--format", "json")
    running = subprocess.Popen(
        [sys.executable, "-m", "lookalike", *shop.ingest("there", *on_ray)],
        cwd=shop.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
    )
    until(lambda: told.exists() and told.stat().st_size > 0, seconds=60)
    kill_one(cluster, "ray::Encoding")
    kill_one(cluster, "ray::_")
    there = json.loads(running.communicate(timeout=120)[0])

    assert running.returncode == 0
    for count in ("stored", "rejected", "new", "embedded"):
        assert there[count] == here[count], count
    assert (there["stored"], there["rejected"], there["embedded"]) == (440, 1, 400)
    assert shop.same("here", "there")


@with_ray
def test_what_a_worker_cannot_do_comes_out_in_words(shop: Shop, cluster: Any) -> None:
    command = shop.ingest("none", "--engine", "ray", "--device", "cuda")
    where: Any = {"cwd": shop.folder, "run": lookalike_process}
    assert "device 'cuda' cannot be used here" in fails(1, *command, **where, RAY_ADDRESS=cluster.address)
    nowhere = fails(1, *command, **where, RAY_ADDRESS="127.0.0.1:9")
    assert "there is no Ray at RAY_ADDRESS '127.0.0.1:9'" in nowhere
    assert "leave it out" in fails(2, *command, "--profile", "trace", **where)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed: make test")
def test_without_ray_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.jpg").write_bytes(b"an image")
    assert "pip install 'lookalike[ray]'" in fails(2, "ingest", tmp_path, "--engine", "ray", cwd=tmp_path)
    assert "'ray' is not one of" in fails(2, "search", "1.jpg", "--engine", "ray", cwd=tmp_path)

"""Ingest on a Ray cluster of two machines: the same rows as without it, even when workers are killed."""

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
    """Two nodes with a CPU each; to Ray they are two machines."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A catalogue with copies of an image and a broken one."""
    folder = tmp_path_factory.mktemp("ray")
    shop = Shop(folder, str(folder / "ray.db"))
    shop.draw(range(400), shade=0)
    photos = folder / "photos"
    for n in range(40):
        (photos / f"p{n}" / "twin.png").write_bytes((photos / "p0" / "0.png").read_bytes())
    (photos / "p1" / "broken.png").write_bytes(b"no image")
    return shop


def workers(cluster: Any, title: str) -> list[int]:
    """The ids of the cluster's processes whose title starts so."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    processes = (line.split(maxsplit=2) for line in listed.splitlines())
    return [int(pid) for pid, parent, name in processes if int(parent) in raylets and name.startswith(title)]


def kill_one(cluster: Any, title: str) -> None:
    pids: list[int] = []

    def has_started() -> bool:
        pids.extend(workers(cluster, title))
        return bool(pids)

    until(has_started)
    os.kill(pids[0], signal.SIGKILL)


@with_ray
def test_a_run_whose_workers_are_killed_stores_the_same_rows_as_without_ray(shop: Shop, cluster: Any) -> None:
    here = shop.run(shop.ingest("here", "--encoder", "pixels"))
    report = shop.folder / "report.jsonl"
    on_ray = ("--encoder", "pixels", "--engine", "ray", "--report", str(report), "--format", "json")
    running = subprocess.Popen(
        [sys.executable, "-m", "lookalike", *shop.ingest("on_ray", *on_ray)],
        cwd=shop.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
    )
    until(lambda: report.exists() and report.stat().st_size > 0, seconds=60)
    kill_one(cluster, "ray::Encoding")
    kill_one(cluster, "ray::_")
    summary = json.loads(running.communicate(timeout=120)[0])

    assert running.returncode == 0
    for count in ("stored", "rejected", "new", "embedded"):
        assert summary[count] == here[count], count
    assert (summary["stored"], summary["rejected"], summary["embedded"]) == (440, 1, 400)
    assert shop.has_same_rows("here", "on_ray")


@with_ray
def test_errors_of_the_cluster_and_of_workers_are_messages(shop: Shop, cluster: Any) -> None:
    command = shop.ingest("none", "--engine", "ray", "--device", "cuda")
    options: Any = {"cwd": shop.folder, "run": lookalike_process}
    assert "device 'cuda' cannot be used here" in fails(1, *command, **options, RAY_ADDRESS=cluster.address)
    message = fails(1, *command, **options, RAY_ADDRESS="127.0.0.1:9")
    assert "there is no Ray at RAY_ADDRESS '127.0.0.1:9'" in message
    assert "leave it out" in fails(2, *command, "--profile", "trace", **options)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed: make test")
def test_without_ray_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.jpg").write_bytes(b"an image")
    assert "pip install 'lookalike[ray]'" in fails(2, "ingest", tmp_path, "--engine", "ray", cwd=tmp_path)
    assert "'ray' is not one of" in fails(2, "search", "1.jpg", "--engine", "ray", cwd=tmp_path)

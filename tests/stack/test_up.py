"""`lookalike up` and `lookalike doctor` for real: started, filled, asked, killed, healed, ended."""

import importlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command import LAYOUT, ROOT, fails, lookalike_process, process_command, process_environment
from conftest import HAS_SERVER, PLAIN, a_row
from serving import until

from lookalike.schema.milvus.store import Store
from lookalike.stack import system_checks as surroundings
from lookalike.stack.doctor import run_checks
from lookalike.stack.finding import Finding

SLOW = 120


class Stack:
    """A running `lookalike up`; what it says is in a file."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", said: Path) -> None:
        self.folder, self.process, self._said = folder, process, said

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def uri(self) -> str:
        return str(re.findall(r"MILVUS_URI=(http://[^;\s]+)", self.said)[-1])

    @property
    def api(self) -> str:
        return str(re.findall(r"--api (http://\S+)", self.said)[-1])

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.api}/ready", trust_env=False, timeout=60).status_code == 200
        except httpx2.TransportError:
            return False

    def wait(self, happened: Callable[[], bool]) -> None:
        """Wait as long as it runs."""
        until(lambda: happened() or self.process.poll() is not None, SLOW)
        assert self.process.poll() is None, self.said

    def doctor(self) -> tuple[int, dict[str, Any]]:
        return doctor(self.folder, "--uri", self.uri, "--api", self.api)

    def processes(self) -> list[int]:
        """The processes that have this stack's folder in their command."""
        return [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and str(self.folder / "stack").encode() in _command(process)
        ]


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Stack]:
    said = folder / "said.txt"
    with said.open("wb") as output:
        process = subprocess.Popen(
            process_command("up", "--folder", "stack", *options),
            cwd=folder,
            env=process_environment(),
            stderr=output,
        )
    stack = Stack(folder, process, said)
    try:
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(SLOW)
    assert process.returncode == 0, stack.said
    assert not stack.processes()


def doctor(folder: Path, *options: str, **environment: Any) -> tuple[int, dict[str, Any]]:
    """Its exit status, and its findings by what was looked at."""
    done = lookalike_process("doctor", "--format", "json", *options, cwd=folder, **environment)
    assert not done.stderr, done.stderr.decode()
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


@pytest.mark.slow
@pytest.mark.skipif(not (HAS_SERVER and Path("/proc").exists()), reason="no Milvus server for this machine")
def test_a_stack_serves_heals_and_ends(catalogue: Path, tmp_path: Path) -> None:
    photos = str(catalogue / "photos")
    with up(tmp_path, "--catalogue", photos, "--every", "1", "--", *LAYOUT, "--encoder", "pixels") as stack:
        stack.wait(lambda: "All is up" in stack.said and "stored 192, rejected 0" in stack.said)
        photo = (catalogue / "photos" / "mug" / "red-plain-mug" / "1.jpg").read_bytes()

        def asked() -> list[str]:
            answer = httpx2.post(f"{stack.api}/search", files={"image": photo}, trust_env=False, timeout=60)
            return [hit["product_id"] for hit in answer.json()["hits"]][:1]

        # The service reads with bounded staleness: what a server has acknowledged is seen a moment later.
        stack.wait(lambda: asked() == ["red-plain-mug"])
        status, found = stack.doctor()
        assert {finding["state"] for finding in found.values()} == {"ok"}, found
        assert status == 0
        assert "192 images, by pixels" in found["collection"]["found"]
        assert found["group by"]["found"].startswith("does not work"), "2.3 ignores it"
        with Store.open(stack.uri) as store:
            assert not [name for name in store.connection.call("list_collections") if "doctor" in name]

        assert "has the folder" in fails(1, "up", "--folder", "stack", cwd=tmp_path, run=lookalike_process)

        [milvus] = [n for n in stack.processes() if b"/bin/milvus" in _command(Path(f"/proc/{n}"))]
        os.kill(milvus, signal.SIGKILL)
        with ThreadPoolExecutor(1) as beside:
            looking = beside.submit(stack.doctor)
            stack.wait(lambda: not stack.ready())
        status, found = looking.result()
        assert status == 1
        assert f"Milvus at {stack.uri} does not answer" in found["milvus"]["found"]

        stack.wait(lambda: stack.ready())
        assert "milvus   was ended by SIGKILL; it is started again in 1 s" in stack.said
        # A server that has just begun answers before it says that it has loaded everything.
        stack.wait(lambda: "192 images" in stack.doctor()[1]["collection"]["found"])
        assert stack.doctor()[0] == 0
        assert asked() == ["red-plain-mug"]


@pytest.mark.slow
def test_without_the_server_milvus_lite_does(catalogue: Path, tmp_path: Path) -> None:
    with up(tmp_path, "--milvus", "lite") as stack:
        stack.wait(lambda: "api      Waiting: no collection 'products'" in stack.said)
        [uri] = re.findall(r"milvus   Lite answers at (\S+)", stack.said)
        done = lookalike_process(
            "ingest", catalogue / "products.csv", "--encoder", "pixels", "--uri", uri, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        stack.wait(lambda: "All is up" in stack.said)
        assert stack.ready()
    with up(tmp_path) as stack:
        stack.wait(lambda: "api      products (192 images)" in stack.said)
    assert "holds the data of --milvus lite" in fails(
        2, "up", "--folder", "stack", "--milvus", "server", cwd=tmp_path, run=lookalike_process
    )


def test_what_cannot_work_ends_it_with_the_reason(tmp_path: Path) -> None:
    said = fails(1, "up", "--milvus", "lite", "--catalogue", "missing", cwd=tmp_path, run=lookalike_process)
    assert "worker has ended with status 2, so the stack has ended" in said
    assert "SOURCE 'missing'" in said
    said = fails(2, "up", "--", "--prune", cwd=tmp_path, run=lookalike_process)
    assert "'--prune' is for a --catalogue" in said


def test_doctor_looks_at_a_milvus_lite_folder_without_touching_it(tmp_path: Path) -> None:
    asked = {"uri": str(tmp_path / "lookalike.db"), "token": "", "collection": "products"}
    with Store.create(asked["uri"], PLAIN) as store:
        store.upsert([a_row("1.jpg")])
        [version, *_] = store.connection.call("list_collections")
        # One process at a time has it: here that is this one, which stands for a service.
        found = {finding.check: finding for finding in surroundings.milvus(asked)}
        assert (found["milvus"].state, found["milvus"].found) == (
            "warning",
            f"{asked['uri']} is open in another process",
        )
    found = {finding.check: finding for finding in surroundings.milvus(asked)}
    assert found["collection"].found == f"products is {version}: 1 images, by test (weights none, 8 dimensions)"
    assert (found["encoder"].state, found["group by"].state) == ("warning", "ok")
    with Store.open(asked["uri"]) as store:
        assert store.connection.call("list_collections") == [version]


def test_doctor_says_what_is_broken_or_missing_and_leaves_nothing(tmp_path: Path) -> None:
    """A library that does not load, no collection, no service."""
    broken, here = tmp_path / "broken", tmp_path / "here"
    broken.mkdir()
    here.mkdir()
    (broken / "onnxruntime.py").write_text("raise RuntimeError('built for another')")
    path = os.pathsep.join([str(broken), str(ROOT)])
    status, found = doctor(here, "--api", "http://127.0.0.1:9", PYTHONPATH=path)
    assert status == 1
    assert found["imports"]["found"] == "import onnxruntime: RuntimeError: built for another"
    assert "http://127.0.0.1:9 does not answer" in found["api"]["found"]
    assert found["milvus"]["found"] == "Milvus Lite; nothing is at ./lookalike.db yet"
    assert found["collection"]["state"] == "warning"
    problems = {check for check, finding in found.items() if finding["state"] == "problem"}
    assert problems == {"imports", "api"}
    assert not list(here.iterdir())


def test_whatever_a_check_raises_is_a_finding() -> None:
    def check(_asked: Mapping[str, Any]) -> Iterator[Finding]:
        yield Finding("x", "ok", str(importlib.import_module("no_such_library")))

    [finding] = run_checks("x", check, {})
    assert (finding.state, finding.found) == ("problem", "ModuleNotFoundError: No module named 'no_such_library'")

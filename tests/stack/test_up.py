"""`lookalike up` and `lookalike doctor` with real processes: start, fill, search, kill, recover, stop."""

import importlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command import LAYOUT, ROOT, fails, lookalike_process, process_command, process_environment
from conftest import HAS_SERVER, PLAIN, a_row
from pymilvus import MilvusClient
from serving import until

from lookalike.schema.errors import AlreadyRunning
from lookalike.schema.milvus.lite.holder import describe_holder
from lookalike.schema.milvus.store import Store
from lookalike.stack.data_dir import DataDir
from lookalike.stack.doctor import run_check
from lookalike.stack.finding import Finding
from lookalike.stack.options import DoctorOptions
from lookalike.stack.system_checks import check_milvus

TIMEOUT = 120


class Stack:
    """A running `lookalike up`; its standard error goes to a file."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", output_file: Path) -> None:
        self.folder, self.process, self._output_file = folder, process, output_file

    @property
    def output(self) -> str:
        return self._output_file.read_text()

    @property
    def uri(self) -> str:
        return str(re.findall(r"MILVUS_URI=(http://[^;\s]+)", self.output)[-1])

    @property
    def api(self) -> str:
        return str(re.findall(r"--api (http://\S+)", self.output)[-1])

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.api}/ready", trust_env=False, timeout=60).status_code == 200
        except httpx2.TransportError:
            return False

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; fail at once if the stack exits."""
        until(lambda: condition() or self.process.poll() is not None, TIMEOUT)
        assert self.process.poll() is None, self.output

    def doctor(self) -> tuple[int, dict[str, Any]]:
        return doctor(self.folder, "--uri", self.uri, "--api", self.api)

    def processes(self) -> list[int]:
        """The processes whose command names this stack's folder."""
        return [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and str(self.folder / "stack").encode() in _command(process)
        ]


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # the process has exited meanwhile
        return b""


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Stack]:
    output_file = folder / "output.txt"
    with output_file.open("wb") as output:
        process = subprocess.Popen(
            process_command("up", "--folder", "stack", *options),
            cwd=folder,
            env=process_environment(),
            stderr=output,
        )
    stack = Stack(folder, process, output_file)
    try:
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(TIMEOUT)
    assert process.returncode == 0, stack.output
    assert not stack.processes()


def doctor(folder: Path, *options: str, **environment: Any) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and the findings by check."""
    done = lookalike_process("doctor", "--format", "json", *options, cwd=folder, **environment)
    assert not done.stderr, done.stderr.decode()
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def list_collections(uri: str) -> list[str]:
    client = MilvusClient(uri)
    try:
        return list(client.list_collections())
    finally:
        client.close()


@pytest.mark.slow
@pytest.mark.skipif(not (HAS_SERVER and Path("/proc").exists()), reason="no Milvus server for this machine")
def test_a_stack_serves_restarts_a_killed_milvus_and_stops(catalogue: Path, tmp_path: Path) -> None:
    photos = str(catalogue / "photos")
    with up(tmp_path, "--catalogue", photos, "--every", "1", "--", *LAYOUT, "--encoder", "pixels") as stack:
        stack.wait(lambda: "All processes are ready" in stack.output and "stored 192, rejected 0" in stack.output)
        photo = (catalogue / "photos" / "mug" / "red-plain-mug" / "1.jpg").read_bytes()

        def best_product() -> list[str]:
            response = httpx2.post(f"{stack.api}/search", files={"image": photo}, trust_env=False, timeout=60)
            return [hit["product_id"] for hit in response.json()["hits"]][:1]

        # The service reads with bounded staleness: rows that the server has acknowledged appear a moment later.
        stack.wait(lambda: best_product() == ["red-plain-mug"])
        status, findings = stack.doctor()
        assert {finding["state"] for finding in findings.values()} == {"ok"}, findings
        assert status == 0
        assert "192 images, by pixels" in findings["collection"]["found"]
        assert findings["group by"]["found"].startswith("does not work"), "2.3 ignores it"
        assert not [name for name in list_collections(stack.uri) if "doctor" in name]

        assert "is in use by lookalike up" in fails(1, "up", "--folder", "stack", cwd=tmp_path, run=lookalike_process)

        [milvus] = [n for n in stack.processes() if b"/bin/milvus" in _command(Path(f"/proc/{n}"))]
        os.kill(milvus, signal.SIGKILL)
        with ThreadPoolExecutor(1) as executor:
            doctor_run = executor.submit(stack.doctor)
            stack.wait(lambda: not stack.is_ready())
        status, findings = doctor_run.result()
        assert status == 1
        assert f"Milvus at {stack.uri} does not answer" in findings["milvus"]["found"]

        stack.wait(lambda: stack.is_ready())
        assert "milvus   was killed by SIGKILL; restarting in 1 s" in stack.output
        # A server that has just started answers before it reports that everything is loaded.
        stack.wait(lambda: "192 images" in stack.doctor()[1]["collection"]["found"])
        assert stack.doctor()[0] == 0
        assert best_product() == ["red-plain-mug"]


@pytest.mark.slow
def test_a_stack_runs_on_milvus_lite(catalogue: Path, tmp_path: Path) -> None:
    with up(tmp_path, "--milvus", "lite") as stack:
        stack.wait(lambda: "api      Waiting: no collection 'products'" in stack.output)
        [uri] = re.findall(r"milvus   Lite answers at (\S+)", stack.output)
        done = lookalike_process(
            "ingest", catalogue / "products.csv", "--encoder", "pixels", "--uri", uri, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        stack.wait(lambda: "All processes are ready" in stack.output)
        assert stack.is_ready()
    with up(tmp_path) as stack:
        stack.wait(lambda: "api      products (192 images)" in stack.output)
    assert "holds the data of --milvus lite" in fails(
        2, "up", "--folder", "stack", "--milvus", "server", cwd=tmp_path, run=lookalike_process
    )


def test_up_stops_with_the_reason_if_a_process_cannot_work(tmp_path: Path) -> None:
    message = fails(1, "up", "--milvus", "lite", "--catalogue", "missing", cwd=tmp_path, run=lookalike_process)
    assert "worker exited with status 2, so the stack was stopped" in message
    assert "SOURCE 'missing'" in message
    message = fails(2, "up", "--", "--prune", cwd=tmp_path, run=lookalike_process)
    assert "'--prune' needs a --catalogue" in message


def test_a_folder_stays_locked_while_a_child_process_lives(tmp_path: Path) -> None:
    """Even after `lookalike up` itself was killed: two Milvus processes must never share the same data."""
    data_dir = DataDir(tmp_path / "stack")
    with data_dir.lock() as lock_fd:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock_fd,))
    try:
        with pytest.raises(AlreadyRunning, match="or by a process that it started"), data_dir.lock():
            pass
    finally:
        child.kill()
        child.wait()
    with data_dir.lock():
        pass


def test_doctor_checks_a_milvus_lite_folder_without_changing_it(tmp_path: Path) -> None:
    options = DoctorOptions(uri=str(tmp_path / "lookalike.db"), token="", collection="products")
    with Store.create(options.uri, PLAIN) as store:
        store.upsert([a_row("1.jpg")])
        version = store.version
        # Only one process can open the folder; here this process stands for the service.
        findings = {finding.check: finding for finding in check_milvus(options)}
        assert (findings["milvus"].state, findings["milvus"].found) == (
            "warning",
            describe_holder(options.uri),
        )
        assert f"process {os.getpid()}" in findings["milvus"].found
    findings = {finding.check: finding for finding in check_milvus(options)}
    assert findings["collection"].found == f"products is {version}: 1 images, by test (weights none, 8 dimensions)"
    assert (findings["encoder"].state, findings["group by"].state) == ("warning", "ok")
    assert list_collections(options.uri) == [version]


def test_doctor_reports_a_service_that_is_not_ready(tmp_path: Path) -> None:
    class NotReady(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), NotReady) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        status, findings = doctor(tmp_path, "--api", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert findings["api"]["state"] == "problem"
    assert "503, it cannot search at present" in findings["api"]["found"]
    assert status == 1


def test_doctor_reports_what_is_broken_or_missing_and_writes_nothing(tmp_path: Path) -> None:
    """A library that does not load, no collection, no service."""
    broken, here = tmp_path / "broken", tmp_path / "here"
    broken.mkdir()
    here.mkdir()
    (broken / "onnxruntime.py").write_text("raise RuntimeError('built for another')")
    path = os.pathsep.join([str(broken), str(ROOT)])
    status, findings = doctor(here, "--api", "http://127.0.0.1:9", PYTHONPATH=path)
    assert status == 1
    assert findings["imports"]["found"] == "import onnxruntime: RuntimeError: built for another"
    assert "http://127.0.0.1:9 does not answer" in findings["api"]["found"]
    assert findings["milvus"]["found"] == "Milvus Lite; ./lookalike.db does not exist yet"
    assert findings["collection"]["state"] == "warning"
    problems = {check for check, finding in findings.items() if finding["state"] == "problem"}
    assert problems == {"imports", "api"}
    assert not list(here.iterdir())


def test_an_exception_in_a_check_is_reported_as_a_problem() -> None:
    def check(_options: DoctorOptions) -> Iterator[Finding]:
        yield Finding("x", "ok", str(importlib.import_module("no_such_library")))

    [finding] = run_check("x", check, DoctorOptions(uri="./lookalike.db", token="", collection="products"))
    assert (finding.state, finding.found) == ("problem", "ModuleNotFoundError: No module named 'no_such_library'")

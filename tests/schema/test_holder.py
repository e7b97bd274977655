"""Who has a Milvus Lite store open, as another process learns it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import fails, lookalike, process_command, process_environment
from conftest import PLAIN, a_row

from lookalike.schema.milvus.lite.holder import describe_holder, is_locked_by_another
from lookalike.schema.milvus.store import Store
from lookalike.schema.process_record import ProcessRecord

RECORD = "lookalike-process.json"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Lock the LOCK of a store in another process, which is not lookalike; yield its id."""
    program = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, folder / "LOCK"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Store.create(str(tmp_path / "x.db"), PLAIN) as store:
        store.upsert([a_row("1.jpg")])
    return tmp_path / "x.db"


def test_a_store_that_nobody_has_open_has_no_record(store: Path) -> None:
    assert not (store / RECORD).exists()
    assert not is_locked_by_another(str(store))


def test_the_record_of_a_killed_process_is_not_believed(store: Path) -> None:
    ProcessRecord(2**22 + 1, "lookalike serve", time.time(), service="http://127.0.0.1:1").write(store / RECORD)
    with locked(store) as pid:
        message = describe_holder(str(store))
    assert f"{store} is open in process {pid} (python" in message
    assert "lookalike serve" not in message
    # Whoever opens the store next replaces it.
    with Store.open(str(store)):
        assert json.loads((store / RECORD).read_text())["pid"] == os.getpid()


def test_another_process_than_the_recorded_one_is_named(store: Path) -> None:
    ProcessRecord(os.getpid(), "lookalike ingest", time.time()).write(store / RECORD)
    with locked(store) as pid:
        assert f"is open in process {pid} (python" in describe_holder(str(store))


def test_a_service_is_named_with_its_address(store: Path) -> None:
    with Store.open(str(store)):
        this = ProcessRecord.read(store / RECORD)
        assert this is not None
        ProcessRecord(this.pid, "lookalike serve", this.since, service="http://127.0.0.1:8123").write(store / RECORD)
        message = describe_holder(str(store))
    assert re.search(rf"process {os.getpid()} \(`lookalike serve`, since \d\d:\d\d\)\. Meanwhile, search", message)
    assert "http://127.0.0.1:8123 in a browser, or lookalike.connect(service='http://127.0.0.1:8123')" in message


def test_a_record_that_cannot_be_read_or_written_stops_nothing(store: Path) -> None:
    (store / RECORD).write_text("{")
    with locked(store) as pid:
        assert f"process {pid}" in describe_holder(str(store))
    (store / RECORD).unlink()
    (store / RECORD).mkdir()
    with Store.open(str(store)) as opened:
        assert opened.count() == 1


def test_the_command_line_names_the_service_that_has_the_store_open(tmp_path: Path) -> None:
    lookalike("sample", "shop", cwd=tmp_path)
    done = lookalike("ingest", "shop/photos", "--encoder", "pixels", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    command = process_command("serve", "--port", "0")
    with subprocess.Popen(command, cwd=tmp_path, env=process_environment(), stderr=subprocess.PIPE) as service:
        assert service.stderr is not None
        try:
            said = next(line for line in service.stderr if b"documented at" in line).decode()
            url = said.split(" at ")[1].split(",")[0]
            for verb in (["search", "--product", "red-plain-mug"], ["info"], ["ingest", "shop/photos"]):
                message = fails(1, *verb, cwd=tmp_path)
                assert f"./lookalike.db is open in process {service.pid} (`lookalike serve`, since " in message
                assert f"search through it: {url} in a browser" in message
            found = lookalike("doctor", cwd=tmp_path).stdout.decode()
            assert f"process {service.pid} (`lookalike serve`" in " ".join(found.split())
        finally:
            service.send_signal(signal.SIGTERM)
    assert lookalike("info", cwd=tmp_path).returncode == 0

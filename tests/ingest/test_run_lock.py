"""One run at a time, and two ways to stop it: the lock file and the signals."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command import ROOT, process_environment

from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.shutdown import Shutdown
from lookalike.schema.cancellation import CancelToken, RunCancelled
from lookalike.schema.errors import AlreadyRunning, BadSettings

RUN = ("http://localhost:19530", "shop", "photos")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, in which there is no lock yet."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def lock_folder(temporary: Path) -> Path:
    return temporary / f"lookalike-{os.getuid()}"


def test_a_second_run_is_refused_and_names_the_first() -> None:
    message = rf"another run of 'photos' into 'shop' .* process {os.getpid()} \(`python .*`, since \d\d:\d\d\)"
    with (
        run_lock(*RUN),
        pytest.raises(AlreadyRunning, match=message),
        run_lock(*RUN),
    ):
        pass


def test_other_sources_collections_and_servers_have_locks_of_their_own() -> None:
    uri, collection, source = RUN
    with run_lock(*RUN), run_lock(uri, collection, "other"), run_lock(uri, "other", source), run_lock("a.db", *RUN[1:]):
        pass


def test_one_lite_store_has_one_lock_however_its_path_is_written(tmp_path: Path) -> None:
    here = os.path.relpath(tmp_path / "shop.db")
    with run_lock(str(tmp_path / "shop.db"), "c", "s"), pytest.raises(AlreadyRunning), run_lock(here, "c", "s"):
        pass


def test_the_lock_can_be_taken_again_after_a_run_and_after_an_error() -> None:
    with pytest.raises(ValueError, match="stop"), run_lock(*RUN):
        raise ValueError("stop")
    with run_lock(*RUN):
        pass


def test_a_killed_process_releases_its_lock() -> None:
    hold = "import sys, time\nfrom lookalike.ingest.run_lock import run_lock\n"
    hold += f"with run_lock(*{RUN!r}):\n    print('held', flush=True)\n    time.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, env=process_environment(), stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(AlreadyRunning, match=f"process {holder.pid}"), run_lock(*RUN):
        pass
    holder.kill()
    holder.communicate()
    with run_lock(*RUN):
        pass


def test_lock_files_are_private_to_the_user(temporary: Path) -> None:
    with run_lock(*RUN):
        folder = lock_folder(temporary)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {file.suffix for file in folder.iterdir()} == {".lock", ".json"}
        assert all(file.stat().st_mode & 0o022 == 0 for file in folder.iterdir())


def test_a_link_in_the_place_of_the_lock_folder_is_not_followed(temporary: Path) -> None:
    (temporary / "target").mkdir(mode=0o700)
    lock_folder(temporary).symlink_to(temporary / "target")
    with pytest.raises(BadSettings, match="not a folder of this user alone"), run_lock(*RUN):
        pass
    assert not list((temporary / "target").iterdir())


def test_a_lock_folder_that_others_can_write_to_is_refused(temporary: Path) -> None:
    lock_folder(temporary).mkdir()
    lock_folder(temporary).chmod(0o777)
    with pytest.raises(BadSettings, match=r"remove it, or set TMPDIR"), run_lock(*RUN):
        pass


def test_a_file_in_the_place_of_the_lock_folder_is_refused(temporary: Path) -> None:
    lock_folder(temporary).write_text("not ours")
    with pytest.raises(BadSettings, match="cannot be created"), run_lock(*RUN):
        pass
    assert lock_folder(temporary).read_text() == "not ours"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_cancels_and_the_second_one_interrupts(number: signal.Signals) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with Shutdown() as shutdown:
        assert not shutdown.token.is_cancelled
        signal.raise_signal(number)
        assert shutdown.token.is_cancelled
        assert shutdown.signal_number == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_token_raises_only_after_it_was_cancelled() -> None:
    token = CancelToken()
    token.check()
    assert not token.wait(0)
    token.cancel()
    assert token.wait(10)
    with pytest.raises(RunCancelled):
        token.check()

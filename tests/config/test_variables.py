"""A variable that nothing reads is warned about, once, on stderr."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import lookalike, lookalike_process


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LOOKALIKE_COLECTION", "LOOKALIKE_COLLECTION"),
        ("LOOKALIKE_MAXPIXELS", "LOOKALIKE_MAX_PIXELS"),
        ("Lookalike_Encoder", "LOOKALIKE_ENCODER"),
        ("LOOKALIKE_API_KEY", "LOOKALIKE_API_KEYS"),
        ("LOOKALIKE_CACHES", "LOOKALIKE_CACHE"),
    ],
)
def test_a_mistyped_variable_is_named_with_the_nearest_one(tmp_path: Path, name: str, nearest: str) -> None:
    mistyped: dict[str, Any] = {name: "secret"}
    done = lookalike("encoders", "--format", "json", cwd=tmp_path, **mistyped)
    assert done.stderr.decode() == f"Warning: {name} is read by nothing; did you mean {nearest}?\n"
    assert json.loads(done.stdout)
    assert done.returncode == 0


def test_a_variable_with_no_near_name_is_warned_about_too(tmp_path: Path) -> None:
    done = lookalike_process("encoders", cwd=tmp_path, LOOKALIKE_XYZZY="1")
    assert b"Warning: LOOKALIKE_XYZZY is read by nothing; unset it, or see `lookalike COMMAND --help`" in done.stderr


def test_a_warning_says_that_a_variable_is_in_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOOKALIKE_COLECTION=shop\n")
    done = lookalike("encoders", cwd=tmp_path)
    assert b"Warning: LOOKALIKE_COLECTION in .env is read by nothing; did you mean" in done.stderr


def test_a_variable_that_another_command_reads_is_no_mistake(tmp_path: Path) -> None:
    read: dict[str, Any] = {
        "LOOKALIKE_COLLECTION": "shop",
        "LOOKALIKE_PORT": "80",
        "LOOKALIKE_API_KEYS": "k",
        "LOOKALIKE_CACHE": ".",
    }
    assert lookalike("encoders", cwd=tmp_path, **read, MILVUS_URI="./a.db", MILVUS_PORT="1").stderr == b""


def test_an_address_of_milvus_under_a_mistyped_name_is_warned_about(tmp_path: Path) -> None:
    done = lookalike("encoders", cwd=tmp_path, MILVUS_URL="http://localhost:19530")
    assert done.stderr == b"Warning: MILVUS_URL is not read by lookalike; did you mean MILVUS_URI?\n"


def test_an_env_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LOOKALIKE_COLLECTION=\xff\n")
    done = lookalike("info", cwd=tmp_path)
    assert done.returncode == 2
    assert b"the file .env cannot be read" in done.stderr

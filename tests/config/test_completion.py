"""The Tab key completes commands, options and values."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import fails, lookalike, process_environment

from lookalike.cli import COMMANDS

SHELLS = ("bash", "zsh", "fish")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

# What bash does at a Tab: it calls the function with the words so far, and takes COMPREPLY.
PRESS_TAB = """
eval "$(lookalike completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
complete -p lookalike >&2
compopt() { echo "compopt $*"; }
_lookalike_completion lookalike
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `lookalike` is on the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "lookalike"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m lookalike "$@"\n')
    command.chmod(0o755)
    inherited = process_environment()
    return {**inherited, "PATH": f"{folder}:{inherited['PATH']}"}


def press_tab(environment: dict[str, str], folder: Path, *words: str) -> list[str]:
    """What bash offers after these words, of which the last is incomplete."""
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS_TAB, "bash", "lookalike", *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "-F _lookalike_completion lookalike" in done.stderr
    return done.stdout.split()


@needs_bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("se",), {"search", "serve"}),
        (("ingest", "photos", "--max-"), {"--max-removals", "--max-rejected", "--max-pixels", "--max-per-host"}),
        (("ingest", "photos", "--engine", ""), {"auto", "torch", "onnx", "compile", "ray"}),
        (("search", "--format", "j"), {"json"}),
        (("config", "ver"), {"versions"}),
        (("completion", ""), set(SHELLS)),
    ],
)
def test_bash_completes_commands_options_and_choices(
    environment: dict[str, str], tmp_path: Path, words: tuple[str, ...], offered: set[str]
) -> None:
    found = set(press_tab(environment, tmp_path, *words))
    assert offered <= found
    assert all(word.startswith(words[-1]) for word in found)


@needs_bash
@pytest.mark.parametrize("words", [("ingest", "pho"), ("search", "pho"), ("info", "--uri", "sh"), ("--config", "sh")])
def test_bash_completes_files(environment: dict[str, str], tmp_path: Path, words: tuple[str, ...]) -> None:
    assert press_tab(environment, tmp_path, *words)[:3] == ["compopt", "-o", "default"]


@needs_bash
def test_completion_works_where_settings_have_mistakes(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lookalike.toml").write_text("xyzzy = 1")
    (tmp_path / ".env").write_bytes(b"\xff")
    assert press_tab(environment | {"LOOKALIKE_XYZZY": "1"}, tmp_path, "enc") == ["encoders"]
    assert press_tab(environment | {"LOOKALIKE_CONFIG": "no.toml"}, Path("/"), "enc") == ["encoders"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_valid(tmp_path: Path, shell: str) -> None:
    done = lookalike("completion", shell, cwd=tmp_path)
    assert b"_LOOKALIKE_COMPLETE" in done.stdout
    assert done.stderr == b""
    executable = shutil.which(shell)
    if executable:
        assert subprocess.run([executable, "-n"], input=done.stdout, capture_output=True).returncode == 0


def test_an_unknown_shell_is_an_error(tmp_path: Path) -> None:
    assert "is not one of 'bash', 'zsh', 'fish'" in fails(2, "completion", "tcsh", cwd=tmp_path)


def test_completing_imports_no_heavy_library(tmp_path: Path) -> None:
    script = "import atexit, sys\natexit.register(lambda: print(*({'torch', 'transformers', 'pymilvus', 'fastapi'}"
    script += " & set(sys.modules)), file=sys.stderr, end=''))\n"
    script += "from lookalike.cli import main\nmain(prog_name='lookalike')"
    for words, position in (("lookalike ", 1), ("lookalike ingest --", 2)):
        variables = {"COMP_WORDS": words, "COMP_CWORD": str(position), "_LOOKALIKE_COMPLETE": "bash_complete"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=process_environment() | variables, cwd=tmp_path, capture_output=True
        )
        assert done.stderr.decode() == ""
        assert len(done.stdout.split()) >= (len(COMMANDS) if position == 1 else 10)

"""Every command of the README works, in its order, and prints what the README says it prints."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from serving import until

from lookalike.schema.filters.json import parse_json_filter
from lookalike.serve.api.schemas import SearchIn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINY_CLIP = str(ROOT / "tests" / "tiny_clip")


def commands() -> list[tuple[str, str]]:
    """The commands of the console blocks, each with the line that has to be in its output."""
    lines = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    following = [*lines[1:], ""]
    return [
        (line.removeprefix("$ "), "" if after.startswith("$ ") else after)
        for line, after in zip(lines, following, strict=True)
        if line.startswith("$ ")
    ]


def searches(command: str) -> bool:
    """Whether a command answers with products."""
    return command.startswith("lookalike search") or "/similar" in command or "/search" in command


def first_product(printed: str) -> str | None:
    """The product that comes first in what a search prints: a table, ids or JSON."""
    found = re.search(r"\b[a-z]+-(?:plain|striped|dotted|checked)-[a-z]+\b", printed)
    return found and found[0]


class Background:
    """A command that the README starts with `&`: the service, on a port that is free here."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://localhost:{free.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        words = [*command.removesuffix("&").split(), "--port", self.address.rsplit(":", 1)[1]]
        self._process = subprocess.Popen(words, cwd=folder, env=environment)
        until(self._answers, seconds=60)

    def end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(60) == 0

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.address}/ready", trust_env=False, timeout=10).status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A folder in which somebody has followed the README from top to bottom."""
    folder, service = tmp_path_factory.mktemp("readme"), Background()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOOKALIKE_", "MILVUS_"))}
    environment = {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command, expected in commands():
        if command.startswith("export "):
            name, value = command.removeprefix("export ").split("=")
            # The tests' own server, wherever it listens.
            environment[name] = value.replace("http://localhost:19530", server)
            continue
        # There may be no model hub here: the tests' own CLIP stands in for OpenAI's.
        command = command.replace("--encoder clip", f"--encoder {TINY_CLIP}")
        command = command.replace("http://localhost:8000", service.address)
        if command.endswith("&"):
            service.start(command, folder, environment)
            continue
        if command == "kill %1":
            service.end()
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert expected or " > " in command, f"the README does not say what {command!r} prints"
        assert expected in done.stdout, command
        if searches(command):
            assert first_product(expected), f"the README does not say what {command!r} finds"
            assert first_product(done.stdout) == first_product(expected), f"{command}\n{done.stdout}"
    return folder


@pytest.mark.slow
def test_the_recipes_work_in_their_order(followed: Path) -> None:
    assert (followed / "answers.png").exists()
    assert len(commands()) >= 14


@pytest.mark.slow
def test_the_python_example_works(followed: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    done = subprocess.run([sys.executable, "-c", example[1]], cwd=followed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("red-plain-mug 0.")


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}: " in makefile


def test_questions_and_filters_in_the_documentation_are_understood() -> None:
    page = (ROOT / "docs" / "service.md").read_text()
    [question] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(SearchIn.model_validate_json(question).query(lambda url: b"").liked) == 2
    filters = [json.loads(found) for found in re.findall(r"`(\{.*?\})` *\|", page)]
    assert len(filters) >= 5
    for told in filters:
        parse_json_filter(told)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

"""The commands of the README work, in order, and print what the README says."""

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


def read_commands() -> list[tuple[str, str]]:
    """The commands of the console blocks, each with a line that its output must contain."""
    lines = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    following = [*lines[1:], ""]
    return [
        (line.removeprefix("$ "), "" if after.startswith("$ ") else after)
        for line, after in zip(lines, following, strict=True)
        if line.startswith("$ ")
    ]


def is_search(command: str) -> bool:
    """Whether a command prints products."""
    return command.startswith("lookalike search") or "/similar" in command or "/search" in command


def first_product(output: str) -> str | None:
    """The first product in the output of a search: a table, ids or JSON."""
    match = re.search(r"\b[a-z]+-(?:plain|striped|dotted|checked)-[a-z]+\b", output)
    return match and match[0]


class BackgroundService:
    """The service, which the README starts with `&`, on a free port."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://localhost:{free.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        arguments = [*command.removesuffix("&").split(), "--port", self.address.rsplit(":", 1)[1]]
        self._process = subprocess.Popen(arguments, cwd=folder, env=environment)
        until(self._is_ready, seconds=60)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(60) == 0

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.address}/ready", trust_env=False, timeout=10).status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture(scope="module")
def readme_folder(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A folder in which all commands of the README were run, from top to bottom."""
    folder, service = tmp_path_factory.mktemp("readme"), BackgroundService()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LOOKALIKE_", "MILVUS_"))}
    environment = {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command, expected in read_commands():
        if command.startswith("export "):
            name, value = command.removeprefix("export ").split("=")
            # The address of the tests' own server.
            environment[name] = value.replace("http://localhost:19530", server)
            continue
        # The tests use a tiny CLIP of their own instead of downloading OpenAI's.
        command = command.replace("--encoder clip", f"--encoder {TINY_CLIP}")
        command = command.replace("http://localhost:8000", service.address)
        if command.endswith("&"):
            service.start(command, folder, environment)
            continue
        if command == "kill %1":
            service.stop()
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert expected or " > " in command, f"the README shows no output of {command!r}"
        assert expected in done.stdout, command
        if is_search(command):
            assert first_product(expected), f"the README shows no product for {command!r}"
            assert first_product(done.stdout) == first_product(expected), f"{command}\n{done.stdout}"
    return folder


@pytest.mark.slow
def test_the_commands_work_in_order(readme_folder: Path) -> None:
    assert (readme_folder / "answers.png").exists()
    assert len(read_commands()) >= 14


@pytest.mark.slow
def test_the_python_example_works(readme_folder: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    done = subprocess.run([sys.executable, "-c", example[1]], cwd=readme_folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("red-plain-mug 0.")


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}: " in makefile


def test_the_queries_and_filters_in_the_documentation_are_valid() -> None:
    page = (ROOT / "docs" / "service.md").read_text()
    [query] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(SearchIn.model_validate_json(query).to_query(lambda url: b"").liked) == 2
    filters = [json.loads(text) for text in re.findall(r"`(\{.*?\})` *\|", page)]
    assert len(filters) >= 5
    for example in filters:
        parse_json_filter(example)


def test_links_between_pages_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

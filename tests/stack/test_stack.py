"""What docker/ promises, checked without Docker: its files, and its commands run as plain processes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import ruamel.yaml
import yaml
from serving import client, until

from lookalike import __version__

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
READER, METRICS = "reader-0123456789", "metrics-0123456789"
ENV = {
    "LOOKALIKE_API_KEYS": READER,
    "LOOKALIKE_METRICS_KEY": METRICS,
    "OBJECTS_PASSWORD": "objects-0123456789",
    "GRAFANA_PASSWORD": "grafana-0123456789",
    "LOOKALIKE_COLLECTION": "stack",
    "LOOKALIKE_ENCODER": "pixels",
    "LOOKALIKE_LAYOUT": "{category}/{product_id}/{image}",
    "LOOKALIKE_WATCH": "1",
}
DOCKERFILE = (DOCKER / "Dockerfile").read_text().replace("\\\n", "")


def _runs(*command: str) -> bool:
    """Whether a command is on this machine and answers."""
    return bool(shutil.which(command[0])) and not subprocess.run([*command, "version"], capture_output=True).returncode


COMPOSE = DOCKER / "compose.yaml"
READERS: dict[str, Callable[[str], Any]] = {
    "YAML 1.1 by PyYAML": yaml.safe_load,
    "YAML 1.2 by ruamel": ruamel.yaml.YAML(typ="safe", pure=True).load,
}


def services(read: Callable[[str], Any] = yaml.safe_load) -> dict[str, dict[str, Any]]:
    """The services of the compose file, its variables put in as Compose does."""
    told: dict[str, dict[str, Any]] = _filled(read(COMPOSE.read_text())["services"])
    return told


def _filled(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _filled(value) for name, value in told.items()}
    if isinstance(told, list):
        return [_filled(value) for value in told]
    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", _value, told) if isinstance(told, str) else told


def _value(found: re.Match[str]) -> str:
    assert found[2] == "-" or found[1] in ENV
    return ENV.get(found[1], found[3])


def instruction(name: str) -> Any:
    """The command of the Dockerfile's ENTRYPOINT or HEALTHCHECK."""
    [command] = re.findall(rf"^{name} .*?(\[.*\])$", DOCKERFILE, re.MULTILINE)
    return json.loads(command)


def environment_of_image() -> dict[str, str]:
    [line] = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split())


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_cpu_and_gpu_services_differ_in_image_device_and_profile_only(read: Callable[[str], Any]) -> None:
    told = services(read)
    for name in ("api", "ingest"):
        cpu, gpu = told[name], told[f"{name}-gpu"]
        assert (cpu["image"], gpu["image"]) == (f"lookalike:{__version__}-cpu", f"lookalike:{__version__}-cuda")
        assert (cpu["profiles"], gpu["profiles"]) == (["cpu"], ["gpu"])
        assert gpu["build"] == {**cpu["build"], "args": {"TORCH": "cu130"}}
        [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        other = {"image", "profiles", "build", "deploy", "depends_on", "networks"}
        assert {key: gpu[key] for key in gpu.keys() - other} == {key: cpu[key] for key in cpu.keys() - other}
    assert set(told["api-gpu"]["depends_on"]) == {"ingest-gpu"}
    assert told["api-gpu"]["networks"] == {"default": {"aliases": ["api"]}}


def test_no_reader_of_the_compose_file_has_to_choose_between_two_values() -> None:
    """PyYAML 6.0.4 lets another mapping win in `<<: [*one, *other]` than 6.0.3 did."""

    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                check(item)
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in keys_of(node)]
            assert len(keys) == len(set(keys)), f"{node.start_mark}: {sorted(keys)}"
            for _, value in node.value:
                check(value)

    def keys_of(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
        for key, value in node.value:
            if key.value == "<<":
                assert isinstance(value, yaml.MappingNode), f"{value.start_mark}: several mappings are merged at once"
                yield from keys_of(value)
            else:
                yield key.value, value

    check(yaml.compose(COMPOSE.read_text()))


@pytest.mark.parametrize("command", ["docker compose", "docker-compose", "podman-compose"])
def test_compose_itself_reads_the_same(command: str, tmp_path: Path) -> None:
    if not _runs(*command.split()):
        pytest.skip(f"no {command} here: install it (docker-compose-plugin, docker-compose or podman-compose)")
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in ENV.items()))
    words = [
        *command.split(),
        "--env-file",
        str(tmp_path / "env"),
        "--file",
        str(COMPOSE),
        "--profile",
        "gpu",
        "config",
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    for name in ("api-gpu", "ingest-gpu"):
        expected = services()[name]
        assert resolved[name]["image"] == expected["image"]
        assert resolved[name]["build"]["args"]["TORCH"] == "cu130"
        assert resolved[name]["command"] == expected["command"]
        assert resolved[name]["environment"] == expected["environment"]
        assert resolved[name]["read_only"] is True


@pytest.mark.parametrize(("name", "service"), services().items())
def test_every_service_is_pinned_bounded_watched_and_for_this_machine_alone(name: str, service: dict[str, Any]) -> None:
    assert re.search(r":[vR]?\D*\d+\.\d+\.\d+|:RELEASE\.\d", service["image"]), "a moving image"
    assert "mem_limit" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
        assert port.split(":")[1] not in ("5000", "7000"), "macOS listens there"
    for other, how in service.get("depends_on", {}).items():
        done = "service_completed_successfully" if other == "milvus-volume" else "service_healthy"
        assert how == {"condition": done}
    # The image of the service brings its own check; the volume's is done when it is done.
    assert "healthcheck" in service or name in ("api", "api-gpu", "milvus-volume")


def test_what_is_ours_may_nothing_and_writes_where_volumes_are() -> None:
    written = [
        environment_of_image()[name].removesuffix("/huggingface").removesuffix("/uploads")
        for name in ("LOOKALIKE_CACHE", "HF_HOME", "LOOKALIKE_UPLOADS")
    ]
    for name in ("api", "ingest", "api-gpu", "ingest-gpu"):
        service = services()[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        mounted = [volume.split(":")[1] for volume in service["volumes"] if isinstance(volume, str)]
        assert set(written) <= set(mounted)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert all(re.search(r"\d+\.\d+\.\d+", base) for base in re.findall(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.MULTILINE))


def test_the_image_holds_every_package() -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert kept == {"lookalike", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / ".env.example").write_bytes((DOCKER / ".env.example").read_bytes())
    make = ["make", "--file", str(ROOT / "Makefile"), f"PYTHON={sys.executable}", "docker/.env"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    made = tmp_path / "docker" / ".env"
    told = dict(line.split("=", 1) for line in made.read_text().splitlines() if "=" in line and line[:1] != "#")
    assert set(ENV) <= set(told)
    assert made.stat().st_mode & 0o077 == 0
    keys = [*told["LOOKALIKE_API_KEYS"].split(","), told["LOOKALIKE_METRICS_KEY"], told["OBJECTS_PASSWORD"]]
    assert len(set(keys)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{32}(:write)?", key) for key in keys)
    before = made.read_text()
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    assert made.read_text() == before


class Container:
    """A service of the compose file as a plain process: its command and environment, with its places moved to here."""

    def __init__(self, name: str, places: dict[str, str]) -> None:
        service = services()[name]
        self._moved = re.compile("|".join(map(re.escape, places)))
        self._places = places
        own = {key: text for key, text in environment_of_image().items() if key.startswith(("LOOKALIKE_", "HF_"))}
        told = {key: self._here(str(text)) for key, text in {**own, **service.get("environment", {})}.items()}
        kept = {key: text for key, text in os.environ.items() if not key.startswith(("LOOKALIKE_", "MILVUS_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**kept, **told, "PATH": path, "LOOKALIKE_PORT": places[":8000"][1:]}
        self._check = service["healthcheck"]["test"][1:] if "healthcheck" in service else instruction("HEALTHCHECK")
        self._check = [self._here(word.replace("$$", "$")) for word in self._check]
        words = [*instruction("ENTRYPOINT"), *map(self._here, service["command"])]
        self.process = subprocess.Popen(words, env=self._environment, cwd=places["/var/lib/lookalike"])

    def healthy(self) -> bool:
        """Run the health check, as Docker does, not all the time."""
        time.sleep(0.3)
        assert self.process.poll() is None, "it has ended"
        return subprocess.run(self._check, env=self._environment, capture_output=True).returncode == 0

    def stop(self) -> int:
        """Ask it to end, as Docker does; give its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()

    def _here(self, text: str) -> str:
        return self._moved.sub(lambda found: self._places[found[0]], text)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, server: str, catalogue: Path) -> dict[str, str]:
    """Where the volumes and addresses of the containers are here."""
    folder = tmp_path_factory.mktemp("stack")
    for name in ("tmp", "lib", "cache"):
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "http://milvus:19530": server,
        "/catalogue": str(catalogue / "photos"),
        "/var/lib/lookalike": str(folder / "lib"),
        "/var/cache/lookalike": str(folder / "cache"),
        "/tmp/heartbeat": str(folder / "tmp" / "heartbeat"),
        "0.0.0.0": "127.0.0.1",
        ":8000": f":{port}",
        ", 8000": f", {port}",
    }


@pytest.fixture(scope="module")
def started(places: dict[str, str]) -> Iterator[tuple[Container, Container]]:
    """The worker, and, once that is healthy, the service."""
    with Container("ingest", places) as worker:
        until(worker.healthy, 60)
        with Container("api", places) as service:
            until(service.healthy, 60)
            yield worker, service
            assert (worker.stop(), service.stop()) == (0, 0), "asked to end, they end well"


def asking(places: dict[str, str], key: str) -> httpx2.Client:
    return client(f"http://127.0.0.1{places[':8000']}", headers={"authorization": f"Bearer {key}"})


@pytest.mark.usefixtures("started")
def test_worker_and_service_run_as_the_compose_file_says(places: dict[str, str]) -> None:
    with asking(places, "a-key-of-nobody") as nobody:
        assert nobody.get("/products/red-plain-mug").status_code == 401
    with asking(places, READER) as reader:
        first = reader.get("/products/red-plain-mug").json()["images"][0]
        # The service shows images from the volume that the worker has read.
        assert reader.get(f"/images/{first['image_id']}").status_code == 200


@pytest.mark.usefixtures("started")
def test_every_panel_of_the_dashboard_asks_for_a_metric_that_is_told(places: dict[str, str]) -> None:
    with asking(places, METRICS) as prometheus:
        text = prometheus.get("/metrics").text
    told = set(re.findall(r"^(?:# TYPE )?(\w+)", text, re.MULTILINE))
    board = json.loads((DOCKER / "grafana" / "lookalike.json").read_text())
    for panel in board["panels"]:
        assert panel["targets"]
        for target in panel["targets"]:
            assert set(re.findall(r"lookalike_\w+", target["expr"])) <= told, panel["title"]
    sources = yaml.safe_load((DOCKER / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"] for source in sources}


def test_a_worker_that_does_not_get_on_is_not_healthy(
    places: dict[str, str], started: tuple[Container, Container]
) -> None:
    worker, _ = started
    beat = Path(places["/tmp/heartbeat"])
    os.utime(beat, (0, 0))
    # Nothing has changed in the catalogue: to have looked is enough.
    until(worker.healthy)
    os.kill(worker.process.pid, signal.SIGSTOP)
    os.utime(beat, (0, 0))
    assert not worker.healthy()
    os.kill(worker.process.pid, signal.SIGCONT)
    until(worker.healthy)


def test_kubernetes_is_told_the_same() -> None:
    files = (DOCKER / "kubernetes").glob("*.yaml")
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    deployments = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Deployment"}
    pods = {name: spec["template"]["spec"] for name, spec in deployments.items()}
    # Otherwise the variables of a service of that name would be taken for settings.
    assert not any(pod["enableServiceLinks"] for pod in pods.values())
    api, worker = (pods[name]["containers"][0] for name in ("lookalike-api", "lookalike-worker"))
    assert (api["livenessProbe"]["httpGet"]["path"], api["readinessProbe"]["httpGet"]["path"]) == ("/health", "/ready")
    assert deployments["lookalike-worker"]["strategy"] == {"type": "Recreate"}
    ingest = services()["ingest"]
    assert worker["args"] == ingest["command"]
    assert worker["livenessProbe"]["exec"]["command"][-1] == ingest["healthcheck"]["test"][-1].replace("$$", "$")
    [kustomization] = [each for each in documents if each["kind"] == "Kustomization"]
    assert f"{kustomization['images'][0]['name']}:{kustomization['images'][0]['newTag']}" == services()["api"]["image"]

"""The files in docker/, checked without Docker: their contents, and their commands run as plain processes."""

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


def _is_installed(*command: str) -> bool:
    return bool(shutil.which(command[0])) and not subprocess.run([*command, "version"], capture_output=True).returncode


COMPOSE = DOCKER / "compose.yaml"
YAML_PARSERS: dict[str, Callable[[str], Any]] = {
    "YAML 1.1 by PyYAML": yaml.safe_load,
    "YAML 1.2 by ruamel": ruamel.yaml.YAML(typ="safe", pure=True).load,
}


def read_services(parse: Callable[[str], Any] = yaml.safe_load) -> dict[str, dict[str, Any]]:
    """The services of the compose file, with the values of ENV for its variables."""
    services: dict[str, dict[str, Any]] = _substitute_variables(parse(COMPOSE.read_text())["services"])
    return services


def _substitute_variables(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _substitute_variables(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_substitute_variables(value) for value in node]
    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", _value_of, node) if isinstance(node, str) else node


def _value_of(match: re.Match[str]) -> str:
    name, operator, default = match.groups()
    assert operator == "-" or name in ENV
    return ENV.get(name, default)


def read_instruction(name: str) -> Any:
    """The command of the Dockerfile's ENTRYPOINT or HEALTHCHECK."""
    [command] = re.findall(rf"^{name} .*?(\[.*\])$", DOCKERFILE, re.MULTILINE)
    return json.loads(command)


def read_image_environment() -> dict[str, str]:
    [line] = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split())


@pytest.mark.parametrize("parse", YAML_PARSERS.values(), ids=YAML_PARSERS)
def test_cpu_and_gpu_services_differ_only_in_image_device_and_profile(parse: Callable[[str], Any]) -> None:
    services = read_services(parse)
    for name in ("api", "ingest"):
        cpu, gpu = services[name], services[f"{name}-gpu"]
        assert (cpu["image"], gpu["image"]) == (f"lookalike:{__version__}-cpu", f"lookalike:{__version__}-cuda")
        assert (cpu["profiles"], gpu["profiles"]) == (["cpu"], ["gpu"])
        assert gpu["build"] == {**cpu["build"], "args": {"TORCH": "cu130"}}
        [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        other = {"image", "profiles", "build", "deploy", "depends_on", "networks"}
        assert {key: gpu[key] for key in gpu.keys() - other} == {key: cpu[key] for key in cpu.keys() - other}
    assert set(services["api-gpu"]["depends_on"]) == {"ingest-gpu"}
    assert services["api-gpu"]["networks"] == {"default": {"aliases": ["api"]}}


def test_merged_mappings_in_the_compose_file_share_no_key() -> None:
    """In `<<: [*one, *other]`, PyYAML 6.0.4 prefers a different mapping than 6.0.3."""

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
                assert isinstance(value, yaml.MappingNode), f"{value.start_mark}: one merge names several mappings"
                yield from keys_of(value)
            else:
                yield key.value, value

    check(yaml.compose(COMPOSE.read_text()))


@pytest.mark.parametrize("command", ["docker compose", "docker-compose", "podman-compose"])
def test_compose_resolves_the_file_as_these_tests_do(command: str, tmp_path: Path) -> None:
    if not _is_installed(*command.split()):
        pytest.skip(f"no {command} here: install it (docker-compose-plugin, docker-compose or podman-compose)")
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in ENV.items()))
    config = [
        *command.split(),
        "--env-file",
        str(tmp_path / "env"),
        "--file",
        str(COMPOSE),
        "--profile",
        "gpu",
        "config",
    ]
    done = subprocess.run(config, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    for name in ("api-gpu", "ingest-gpu"):
        expected = read_services()[name]
        assert resolved[name]["image"] == expected["image"]
        assert resolved[name]["build"]["args"]["TORCH"] == "cu130"
        assert resolved[name]["command"] == expected["command"]
        assert resolved[name]["environment"] == expected["environment"]
        assert resolved[name]["read_only"] is True


@pytest.mark.parametrize(("name", "service"), read_services().items())
def test_every_service_has_a_version_a_memory_limit_a_health_check_and_local_ports(
    name: str, service: dict[str, Any]
) -> None:
    assert re.search(r":[vR]?\D*\d+\.\d+\.\d+|:RELEASE\.\d", service["image"]), "the image has no fixed version"
    assert "mem_limit" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
        assert port.split(":")[1] not in ("5000", "7000"), "macOS listens there"
    for other, dependency in service.get("depends_on", {}).items():
        condition = "service_completed_successfully" if other == "milvus-volume" else "service_healthy"
        assert dependency == {"condition": condition}
    # The image of the API has its own health check; `milvus-volume` runs once and exits.
    assert "healthcheck" in service or name in ("api", "api-gpu", "milvus-volume")


def test_our_services_have_no_capabilities_and_write_only_to_volumes() -> None:
    written = [
        read_image_environment()[name].removesuffix("/huggingface").removesuffix("/uploads")
        for name in ("LOOKALIKE_CACHE", "HF_HOME", "LOOKALIKE_UPLOADS")
    ]
    for name in ("api", "ingest", "api-gpu", "ingest-gpu"):
        service = read_services()[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        mounted = [volume.split(":")[1] for volume in service["volumes"] if isinstance(volume, str)]
        assert set(written) <= set(mounted)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert all(re.search(r"\d+\.\d+\.\d+", base) for base in re.findall(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.MULTILINE))


def test_the_docker_build_context_has_what_the_installation_needs() -> None:
    included = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert included == {"lookalike", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"}


def test_make_generates_the_secrets_once(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / ".env.example").write_bytes((DOCKER / ".env.example").read_bytes())
    make = ["make", "--file", str(ROOT / "Makefile"), f"PYTHON={sys.executable}", "docker/.env"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    made = tmp_path / "docker" / ".env"
    settings = dict(line.split("=", 1) for line in made.read_text().splitlines() if "=" in line and line[:1] != "#")
    assert set(ENV) <= set(settings)
    assert made.stat().st_mode & 0o077 == 0
    keys = [*settings["LOOKALIKE_API_KEYS"].split(","), settings["LOOKALIKE_METRICS_KEY"], settings["OBJECTS_PASSWORD"]]
    assert len(set(keys)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{32}(:write)?", key) for key in keys)
    before = made.read_text()
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    assert made.read_text() == before


class Container:
    """A service of the compose file as a plain process, with local paths and addresses instead of the container's."""

    def __init__(self, name: str, local: dict[str, str]) -> None:
        service = read_services()[name]
        self._pattern = re.compile("|".join(map(re.escape, local)))
        self._local = local
        image = {key: text for key, text in read_image_environment().items() if key.startswith(("LOOKALIKE_", "HF_"))}
        own = {key: self._localize(str(text)) for key, text in {**image, **service.get("environment", {})}.items()}
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(("LOOKALIKE_", "MILVUS_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**inherited, **own, "PATH": path, "LOOKALIKE_PORT": local[":8000"][1:]}
        has_check = "healthcheck" in service
        health_check = service["healthcheck"]["test"][1:] if has_check else read_instruction("HEALTHCHECK")
        self._health_check = [self._localize(word.replace("$$", "$")) for word in health_check]
        command = [*read_instruction("ENTRYPOINT"), *map(self._localize, service["command"])]
        self.process = subprocess.Popen(command, env=self._environment, cwd=local["/var/lib/lookalike"])

    def is_healthy(self) -> bool:
        """Run the health check, after a pause as Docker does."""
        time.sleep(0.3)
        assert self.process.poll() is None, "the process has exited"
        return subprocess.run(self._health_check, env=self._environment, capture_output=True).returncode == 0

    def stop(self) -> int:
        """Send SIGTERM, as Docker does; return the exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()

    def _localize(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._local[match[0]], text)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, server: str, catalogue: Path) -> dict[str, str]:
    """From paths and addresses in the containers to those on this machine."""
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
def containers(local: dict[str, str]) -> Iterator[tuple[Container, Container]]:
    """The worker and the service, both healthy."""
    with Container("ingest", local) as worker:
        until(worker.is_healthy, 60)
        with Container("api", local) as service:
            until(service.is_healthy, 60)
            yield worker, service
            assert (worker.stop(), service.stop()) == (0, 0), "SIGTERM ends both with status 0"


def client_with_key(local: dict[str, str], key: str) -> httpx2.Client:
    return client(f"http://127.0.0.1{local[':8000']}", headers={"authorization": f"Bearer {key}"})


@pytest.mark.usefixtures("containers")
def test_worker_and_service_run_as_the_compose_file_says(local: dict[str, str]) -> None:
    with client_with_key(local, "an-unknown-key-0123") as stranger:
        assert stranger.get("/products/red-plain-mug").status_code == 401
    with client_with_key(local, READER) as reader:
        first = reader.get("/products/red-plain-mug").json()["images"][0]
        # The service serves images from the volume that the worker reads.
        assert reader.get(f"/images/{first['image_id']}").status_code == 200


@pytest.mark.usefixtures("containers")
def test_every_panel_of_the_dashboard_queries_an_existing_metric(local: dict[str, str]) -> None:
    with client_with_key(local, METRICS) as prometheus:
        text = prometheus.get("/metrics").text
    metrics = set(re.findall(r"^(?:# TYPE )?(\w+)", text, re.MULTILINE))
    board = json.loads((DOCKER / "grafana" / "lookalike.json").read_text())
    for panel in board["panels"]:
        assert panel["targets"]
        for target in panel["targets"]:
            assert set(re.findall(r"lookalike_\w+", target["expr"])) <= metrics, panel["title"]
    sources = yaml.safe_load((DOCKER / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"] for source in sources}


def test_a_worker_without_progress_is_unhealthy(local: dict[str, str], containers: tuple[Container, Container]) -> None:
    worker, _ = containers
    heartbeat = Path(local["/tmp/heartbeat"])
    os.utime(heartbeat, (0, 0))
    # The catalogue has not changed, but a run that succeeds touches the file.
    until(worker.is_healthy)
    os.kill(worker.process.pid, signal.SIGSTOP)
    os.utime(heartbeat, (0, 0))
    assert not worker.is_healthy()
    os.kill(worker.process.pid, signal.SIGCONT)
    until(worker.is_healthy)


def test_the_kubernetes_manifests_match_the_compose_file() -> None:
    files = (DOCKER / "kubernetes").glob("*.yaml")
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    deployments = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Deployment"}
    pods = {name: spec["template"]["spec"] for name, spec in deployments.items()}
    # Otherwise lookalike would read the variables that Kubernetes sets for its services as settings.
    assert not any(pod["enableServiceLinks"] for pod in pods.values())
    api, worker = (pods[name]["containers"][0] for name in ("lookalike-api", "lookalike-worker"))
    assert (api["livenessProbe"]["httpGet"]["path"], api["readinessProbe"]["httpGet"]["path"]) == ("/health", "/ready")
    assert deployments["lookalike-worker"]["strategy"] == {"type": "Recreate"}
    ingest = read_services()["ingest"]
    assert worker["args"] == ingest["command"]
    assert worker["livenessProbe"]["exec"]["command"][-1] == ingest["healthcheck"]["test"][-1].replace("$$", "$")
    [kustomization] = [each for each in documents if each["kind"] == "Kustomization"]
    assert (
        f"{kustomization['images'][0]['name']}:{kustomization['images'][0]['newTag']}"
        == read_services()["api"]["image"]
    )

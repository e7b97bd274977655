"""The Milvus server of the wheel milvus==2.3.5: `python -m lookalike.stack.milvus FOLDER PORT HEALTH_PORT`.

Replaces its own process with the Milvus server (`os.execve`). The launcher of the wheel would stay as the parent and
kill the server one second after SIGTERM.
"""

import os
import socket
import sys
from pathlib import Path

ETCD_CONFIG = """\
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""
"""Without this file the server's etcd always takes port 2380, so that a second server on the machine hangs."""

_COMPONENTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_SESSION_TTL_SECONDS = 10
"""How long the components of a killed server count as alive and block the next server; Milvus's default is 30."""


def exec_server(folder: Path, port: int, health_port: int) -> None:
    """Replace this process with a Milvus server that keeps its data in `folder`; does not return."""
    import milvus

    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder, port)
    milvus._initialize_data_files(str(folder))
    etcd_config = folder / "configs" / "etcd.yaml"
    etcd_config.write_text(ETCD_CONFIG.format(client=find_free_port(), peer=find_free_port()))
    binary = folder / "bin" / "milvus"
    environment = {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(health_port),
        "ETCD_CONFIG_PATH": str(etcd_config),
        "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH": str(binary.parent),
    }
    os.chdir(folder)
    os.execve(binary, [str(binary), "run", "standalone"], {**os.environ, **environment})  # noqa: S606  needs no shell


def find_free_port(preferred: int = 0) -> int:
    """Return a port that nothing listens at: the preferred one if possible, else any."""
    try:
        with socket.create_server(("", preferred)) as free:
            port: int = free.getsockname()[1]
            return port
    except OSError:
        if not preferred:
            raise
        return find_free_port()


def _write_config(folder: Path, port: int) -> None:
    import milvus

    config = milvus.MilvusServerConfig(data_dir=str(folder))
    for name in config.configurable_items:
        if name.endswith("_port"):
            config.set(name, find_free_port())
    config.set("proxy_port", port)
    for component in _COMPONENTS:
        # The server still listens on all addresses, but its components find each other when the machine's address
        # changes.
        config.set(f"{component}.ip", "127.0.0.1")
    config.set("common.session.ttl", str(_SESSION_TTL_SECONDS))
    config.set("common.gracefulStopTimeout", "5")
    config.set("log.level", "warn")
    # Not config.resolve(): it picks another port while a connection to the previous server lingers.
    config.resolve_storage()
    config.write_config()


if __name__ == "__main__":
    exec_server(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

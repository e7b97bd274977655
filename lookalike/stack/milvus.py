"""The Milvus server of the wheel milvus==2.3.5: `python -m lookalike.stack.milvus FOLDER PORT HEALTH_PORT`.

Replaces its own process with the server. The launcher of the wheel would stay beside it, and would kill it a second
after it was asked to end.
"""

import os
import socket
import sys
from pathlib import Path

ETCD = """\
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""
"""Without it the server's etcd insists on port 2380, so that two servers on one machine hang."""

_PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_SESSION_SECONDS = 10
"""For how long a killed server's parts count as alive, and keep the next from starting; 30 unless said."""


def become_server(folder: Path, port: int, health_port: int) -> None:
    """Replace this process by a server with its data in `folder`; does not return."""
    import milvus

    folder.mkdir(parents=True, exist_ok=True)
    config = milvus.MilvusServerConfig(data_dir=str(folder))
    for name in config.configurable_items:
        if name.endswith("_port"):
            config.set(name, free_port())
    config.set("proxy_port", port)
    for part in _PARTS:
        # It listens everywhere all the same; but its parts find each other when the machine's address changes.
        config.set(f"{part}.ip", "127.0.0.1")
    config.set("common.session.ttl", str(_SESSION_SECONDS))
    config.set("common.gracefulStopTimeout", "5")
    config.set("log.level", "warn")
    # Not config.resolve(): it takes another port where a connection to the server before still lingers.
    config.resolve_storage()
    config.write_config()
    milvus._initialize_data_files(str(folder))
    etcd = folder / "configs" / "etcd.yaml"
    etcd.write_text(ETCD.format(client=free_port(), peer=free_port()))
    binary = folder / "bin" / "milvus"
    environment = {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(health_port),
        "ETCD_CONFIG_PATH": str(etcd),
        "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH": str(binary.parent),
    }
    os.chdir(folder)
    os.execve(binary, [str(binary), "run", "standalone"], {**os.environ, **environment})  # noqa: S606  no shell is meant


def free_port(preferred: int = 0) -> int:
    """A port that nothing listens at: the preferred one, or any."""
    try:
        with socket.create_server(("", preferred)) as free:
            port: int = free.getsockname()[1]
            return port
    except OSError:
        if not preferred:
            raise
        return free_port()


if __name__ == "__main__":
    become_server(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Start the Milvus server that the wheel milvus==2.3.5 carries, beside whatever else runs on this machine."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ETCD = """\
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """Run a server with its data in `folder`; gives its address."""
    from milvus import default_server

    # Its embedded etcd would insist on port 2380, so that two servers on one machine hang.
    etcd = folder / "etcd.yaml"
    etcd.write_text(_ETCD.format(client=_free_port(), peer=_free_port()))
    os.environ["ETCD_CONFIG_PATH"] = str(etcd)
    default_server.listen_port = _free_port()
    default_server.set_base_dir(str(folder))
    default_server.start()
    try:
        yield f"http://127.0.0.1:{default_server.listen_port}"
    finally:
        default_server.stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port

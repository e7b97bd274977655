"""Start the Milvus server that the wheel milvus==2.3.5 carries, beside whatever else runs on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.milvus import ETCD, free_port


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """Run a server with its data in `folder`; gives its address."""
    from milvus import default_server

    etcd = folder / "etcd.yaml"
    etcd.write_text(ETCD.format(client=free_port(), peer=free_port()))
    os.environ["ETCD_CONFIG_PATH"] = str(etcd)
    default_server.listen_port = free_port()
    default_server.set_base_dir(str(folder))
    default_server.start()
    try:
        yield f"http://127.0.0.1:{default_server.listen_port}"
    finally:
        default_server.stop()

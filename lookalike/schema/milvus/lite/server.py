"""Milvus Lite's server, as a process: `python -m lookalike.schema.milvus.lite.server FOLDER PORT`. Ends on SIGINT.

Its own would share its port with another one, so that connections reach either, and let two calls write at once.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc

_LARGEST = 256 * 2**20
"""Bytes of a message."""


def serve(folder: str, port: int) -> None:
    """Answer until SIGINT, one call after the other."""
    with MilvusLite(folder) as database:
        options = {"max_receive_message_length": _LARGEST, "max_send_message_length": _LARGEST, "so_reuseport": 0}
        server = grpc.server(ThreadPoolExecutor(1), options=[(f"grpc.{name}", n) for name, n in options.items()])
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            server.wait_for_termination()
        except KeyboardInterrupt:
            server.stop(grace=5).wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

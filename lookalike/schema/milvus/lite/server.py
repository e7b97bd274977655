"""The Milvus Lite server as a process: `python -m lookalike.schema.milvus.lite.server FOLDER PORT`. Ends on SIGINT.

Milvus Lite's own server shares its port with a second one, so that a client reaches either, and runs calls in several
threads, of which two may write at once.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc

from lookalike.schema.milvus.lite.holder import forget_holder, record_holder

_MAX_MESSAGE_BYTES = 256 * 2**20


def serve(folder: str, port: int) -> None:
    """Serve until SIGINT, one call after the other."""
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0),
    ]
    with MilvusLite(folder) as database:
        server = grpc.server(ThreadPoolExecutor(1), options=options)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        record_holder(folder, milvus=f"http://127.0.0.1:{port}")
        try:
            server.wait_for_termination()
        except KeyboardInterrupt:
            forget_holder(folder)
            server.stop(grace=5).wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

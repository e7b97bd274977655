"""The only import of pymilvus in the project, made with an empty MILVUS_URI.

At import, pymilvus parses MILVUS_URI and fails for a Milvus Lite path; without one, it reads a `.env` file from
wherever it is installed. An empty MILVUS_URI prevents both. The options of the commands read MILVUS_URI for us.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _empty_uri() -> Iterator[None]:
    uri = os.environ.get("MILVUS_URI")
    os.environ["MILVUS_URI"] = ""
    try:
        yield
    finally:
        if uri is None:
            del os.environ["MILVUS_URI"]
        else:
            os.environ["MILVUS_URI"] = uri


with _empty_uri():
    from pymilvus import DataType, MilvusClient
    from pymilvus.client.types import LoadState
    from pymilvus.exceptions import MilvusException

# Every error reaches the caller as an exception; pymilvus would print it with a traceback as well.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)

__all__ = ["DataType", "LoadState", "MilvusClient", "MilvusException"]

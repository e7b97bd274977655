"""pymilvus, imported so that it does no harm: the only import of it in the project.

At import it parses MILVUS_URI itself and fails for a Milvus Lite path, and it reads a `.env` from wherever it is
installed. An empty MILVUS_URI keeps it from both; ours is read by the command's own options.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _empty_uri() -> Iterator[None]:
    meant = os.environ.get("MILVUS_URI")
    os.environ["MILVUS_URI"] = ""
    try:
        yield
    finally:
        if meant is None:
            del os.environ["MILVUS_URI"]
        else:
            os.environ["MILVUS_URI"] = meant


with _empty_uri():
    from pymilvus import DataType, MilvusClient
    from pymilvus.client.types import LoadState
    from pymilvus.exceptions import MilvusException

# Every error reaches the caller as an exception; pymilvus would print it with a traceback as well.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)

__all__ = ["DataType", "LoadState", "MilvusClient", "MilvusException"]

"""Connect to a collection."""

import os

from lookalike.api.collection import Collection
from lookalike.api.inputs.checks import check_path, check_text
from lookalike.api.inputs.images import ImageLoader
from lookalike.api.parameter_names import name_parameters
from lookalike.api.session import Session
from lookalike.schema.settings import DEFAULT_URI, CollectionAddress, check_collection, check_uri


def connect(
    uri: str | os.PathLike[str] = DEFAULT_URI,
    *,
    collection: str = "products",
    encoder: str | None = None,
    device: str = "auto",
    token: str = "",
    allow_private_urls: bool = False,
) -> Collection:
    """Connect to a collection, in Milvus Lite (a path ending in .db) or on a Milvus server (http://…).

    The collection need not exist yet: the first `ingest` creates it, with `encoder` or the default one. Leave `encoder`
    out for a collection that exists: it has its own. `device` is where the encoder runs. `allow_private_urls` also
    fetches images from URLs that lead to a private network. Nothing is opened before it is needed. Raises BadSettings
    for an invalid `uri` or `collection`.

    >>> with lookalike.connect("./lookalike.db", collection="products") as shop:
    ...     shop.info().products
    64
    """
    with name_parameters():
        address = CollectionAddress(
            check_uri(check_path("uri", uri)), token, check_collection(check_text("collection", collection))
        )
    return Collection(Session(address, encoder, device), ImageLoader(allow_private_urls))

"""Connect to a collection."""

import os
from typing import overload

from lookalike.api.collection import Collection
from lookalike.api.inputs.checks import check_path, check_text
from lookalike.api.inputs.images import ImageLoader
from lookalike.api.parameter_names import name_parameters
from lookalike.api.service_collection import ServiceCollection
from lookalike.api.session import Session
from lookalike.encode.registry import check_encoder_name
from lookalike.schema.errors import BadSettings
from lookalike.schema.settings import DEFAULT_URI, CollectionAddress, check_collection, check_uri
from lookalike.serve.client import Client


@overload
def connect(
    uri: str | os.PathLike[str] = DEFAULT_URI,
    *,
    collection: str = "products",
    encoder: str | None = None,
    device: str = "auto",
    token: str = "",
    allow_private_urls: bool = False,
) -> Collection: ...
@overload
def connect(*, service: str, api_key: str | None = None, allow_private_urls: bool = False) -> ServiceCollection: ...
def connect(
    uri: str | os.PathLike[str] | None = None,
    *,
    collection: str = "products",
    encoder: str | None = None,
    device: str = "auto",
    token: str = "",
    service: str | None = None,
    api_key: str | None = None,
    allow_private_urls: bool = False,
) -> Collection | ServiceCollection:
    """Connect to a collection: in Milvus Lite (a path ending in .db), on a Milvus server (http://…), or by a service.

    The collection need not exist yet: the first `ingest` creates it, with `encoder` or the default one. Leave `encoder`
    out for a collection that exists: it has its own. `device` is where the encoder runs. `allow_private_urls` also
    fetches images from URLs that lead to a private network. Nothing is opened before it is needed.

    With `service`, the address of a running `lookalike serve`, searches go there over HTTP, with `api_key` where the
    service has keys; this process then needs neither Milvus nor the encoder.

    Raises BadSettings for an invalid `uri`, `collection` or `service`, EncoderUnavailable for a mistyped `encoder`.

    >>> with lookalike.connect("./lookalike.db", collection="products") as shop:
    ...     shop.info().products
    64
    """
    if service is not None:
        if uri is not None or encoder is not None or token or (collection, device) != ("products", "auto"):
            raise BadSettings(
                "connect(service=…) takes only api_key and allow_private_urls besides: the service has its "
                "own Milvus, collection and encoder"
            )
        client = Client(check_text("service", service), key=api_key)
        return ServiceCollection(service, client, ImageLoader(allow_private_urls, "PNG"))
    if api_key is not None:
        raise BadSettings("api_key is for connect(service=…); Milvus takes a token")
    with name_parameters():
        address = CollectionAddress(
            check_uri(check_path("uri", DEFAULT_URI if uri is None else uri)),
            token,
            check_collection(check_text("collection", collection)),
        )
        if encoder is not None:
            check_encoder_name(check_text("encoder", encoder))
    return Collection(Session(address, encoder, device), ImageLoader(allow_private_urls))

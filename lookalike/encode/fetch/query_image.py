"""One image by its URL, for a search on this machine: fetched within 30 seconds, by connections that are shared."""

from functools import cache

from lookalike.encode.fetch.address import allow_any
from lookalike.encode.fetch.errors import AddressRefused, FetchFailed
from lookalike.encode.fetch.fetcher import Fetcher
from lookalike.encode.fetch.limits import Limits
from lookalike.encode.fetch.network import AddressPolicy
from lookalike.encode.fetch.url import shown_url
from lookalike.encode.image_limits import MAX_BYTES
from lookalike.schema.errors import BadImage

_LIMITS = Limits(MAX_BYTES, connect=10.0, read=10.0, whole=30.0, attempts=2)


def fetch_query_image(url: str, *, allow_private: bool) -> bytes:
    """Fetch an image. Raises BadImage, also for a URL that leads to a private address, unless `allow_private`."""
    try:
        return _fetcher(allow_private=allow_private).fetch(url).content
    except AddressRefused as error:
        raise BadImage(
            f"{shown_url(url)} could not be fetched: {error}; if you trust it, add --allow-private-urls"
        ) from error
    except FetchFailed as error:
        raise BadImage(f"{shown_url(url)} could not be fetched: {error}") from error


@cache
def _fetcher(*, allow_private: bool) -> Fetcher:
    """The fetcher of this process: all searches share its connections."""
    return Fetcher(_LIMITS, AddressPolicy(allow_any, trusted=True) if allow_private else AddressPolicy())

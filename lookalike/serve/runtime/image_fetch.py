"""The images that requests name by URL: fetched from the public internet only, within bounds of size and time."""

from lookalike.encode.fetch.errors import FetchFailed
from lookalike.encode.fetch.fetcher import Fetcher
from lookalike.encode.fetch.limits import Limits
from lookalike.encode.fetch.url import shown_url
from lookalike.schema.errors import BadQuery
from lookalike.serve.runtime.deadline import current_deadline

_SECONDS = 10.0
_ATTEMPTS = 2
_REDIRECTS = 3
_PER_HOST = 32
"""As many as the service answers searches at once: a popular host holds nobody up."""


def query_fetcher(max_bytes: int, seconds: float = _SECONDS) -> Fetcher:
    """Make what fetches the images of requests; a requester is not trusted."""
    return Fetcher(Limits(max_bytes, seconds, seconds, seconds, _ATTEMPTS, _REDIRECTS, _PER_HOST))


class RequestFetcher:
    """The fetches of one request: so many, so many bytes in all, and no longer than anybody waits for its answer."""

    def __init__(self, fetcher: Fetcher | None, most: int, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._most = most
        self._done = 0
        self._bytes_left = max_bytes

    def fetch(self, url: str) -> bytes:
        """Fetch an image. Raises BadQuery, always so without a fetcher; TooLate."""
        if self._fetcher is None:
            raise BadQuery("image_url is not fetched by this service (--fetch-urls); send the image itself as image")
        if self._done == self._most:
            raise BadQuery(f"one request may name {self._most} images by image_url; send the others in another one")
        deadline = current_deadline()
        if deadline is not None:
            deadline.check()
        self._done += 1
        content = self._fetched(self._fetcher, url, deadline.left if deadline is not None else None)
        self._bytes_left -= len(content)
        return content

    def _fetched(self, fetcher: Fetcher, url: str, seconds: float | None) -> bytes:
        try:
            return fetcher.fetch(url, max_bytes=self._bytes_left, seconds=seconds).content
        except FetchFailed as error:
            raise BadQuery(f"{shown_url(url)} could not be fetched: {error}; send the image itself instead") from error

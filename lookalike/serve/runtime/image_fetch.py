"""Fetches the images that requests name by URL: from the public internet only, within limits of size and time."""

from lookalike.encode.fetch.errors import FetchFailed
from lookalike.encode.fetch.fetcher import Fetcher
from lookalike.encode.fetch.limits import Limits
from lookalike.encode.fetch.url import shown_url
from lookalike.schema.errors import BadQuery
from lookalike.serve.runtime.deadline import check_deadline, current_deadline

_SECONDS = 10.0
_ATTEMPTS = 2
_REDIRECTS = 3
_PER_HOST = 32
"""As many as the service runs searches at once, so that requests never wait for a popular host's connections."""


def make_query_fetcher(max_bytes: int, seconds: float = _SECONDS) -> Fetcher:
    """Make the fetcher for URLs in requests. Clients are not trusted, so private addresses are refused."""
    return Fetcher(Limits(max_bytes, seconds, seconds, seconds, _ATTEMPTS, _REDIRECTS, _PER_HOST))


class RequestFetcher:
    """Fetches images for one request: up to `max_images`, up to `max_bytes` in all, until the request's deadline."""

    def __init__(self, fetcher: Fetcher | None, max_images: int, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_images = max_images
        self._fetched_images = 0
        self._bytes_left = max_bytes

    def fetch(self, url: str) -> bytes:
        """Fetch an image.

        Raises BadQuery if it cannot be fetched, is one too many, or the service fetches no URLs; DeadlineExceeded.
        """
        if self._fetcher is None:
            raise BadQuery("this service does not fetch image_url; send the file in image")
        if self._fetched_images == self._max_images:
            raise BadQuery(
                f"one request may name {self._max_images} images by image_url; send the others in another request"
            )
        check_deadline()
        self._fetched_images += 1
        content = self._fetch_bytes(self._fetcher, url)
        self._bytes_left -= len(content)
        return content

    def _fetch_bytes(self, fetcher: Fetcher, url: str) -> bytes:
        deadline = current_deadline()
        seconds = deadline.seconds_left if deadline is not None else None
        try:
            return fetcher.fetch(url, max_bytes=self._bytes_left, seconds=seconds).content
        except FetchFailed as error:
            raise BadQuery(f"{shown_url(url)} could not be fetched: {error}; send the image itself instead") from error

"""The settings of a service, in one place."""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from lookalike.encode.image_limits import MAX_PIXELS
from lookalike.schema.errors import BadSettings

_MIN_KEY_LENGTH = 16
_WRITE = ":write"


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and folders of a service.

    `max_body` is the size of a request in bytes; `max_in_flight` the number of requests that run or wait; `deadline`
    the seconds until a request fails with 504. `body_timeout` is the seconds within which a body must arrive,
    `public_body_timeout` the same for paths that need no key. `uploads` is the folder for images that are uploaded
    with a product. `fetch_urls` lets requests name images by URL. `allow_private_urls` is for showing images of the
    collection, never for URLs of requests.
    """

    keys: "Keys"
    host: str = "127.0.0.1"
    max_body: int = 25 * 2**20
    max_pixels: int = MAX_PIXELS
    max_in_flight: int = 128
    deadline: float = 30.0
    body_timeout: float = 60.0
    public_body_timeout: float = 10.0
    fetch_urls: bool = False
    allow_private_urls: bool = False
    uploads: Path = field(default_factory=lambda: Path("lookalike-uploads"))


class Keys:
    """API keys, some of which may write. Without keys, any caller may read and write: bind to localhost only."""

    def __init__(self, keys: dict[str, bool]) -> None:
        # Digests have one length: the time of a comparison reveals nothing of a key, not even its length.
        self._may_write = {hashlib.sha256(key.encode()).digest(): can_write for key, can_write in keys.items()}

    @classmethod
    def parse(cls, text: str) -> "Keys":
        """Read `key, key:write, …`. Raises BadSettings for a key that is short enough to guess."""
        keys = {}
        for word in filter(None, (word.strip() for word in text.split(","))):
            key = word.removesuffix(_WRITE)
            if len(key) < _MIN_KEY_LENGTH:
                raise BadSettings(
                    f"LOOKALIKE_API_KEYS holds a key of {len(key)} characters; use at least {_MIN_KEY_LENGTH}, "
                    "such as the output of: openssl rand -hex 16"
                )
            keys[key] = word.endswith(_WRITE)
        return cls(keys)

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return bool(self._may_write)

    def may_write(self, key: str) -> bool | None:
        """Whether a key may write; None for an unknown key. Takes the same time for every key."""
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        result = None
        for known, can_write in self._may_write.items():
            if hmac.compare_digest(digest, known):
                result = can_write
        return result


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

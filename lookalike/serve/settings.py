"""What the service can be told, in one place."""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from lookalike.encode.decode import MAX_PIXELS
from lookalike.schema.errors import BadSettings

_LEAST_KEY = 16
_WRITE = ":write"


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and places of a service.

    `max_body` is bytes of a request, `max_in_flight` requests that are worked on or wait, `deadline` seconds until an
    answer is of no use. `uploads` is the folder for images that are uploaded with a product. `remember` is for how
    many seconds a product's vector may be kept. `allow_private_urls` is for images of the
    collection, never for those of requests.
    """

    keys: "Keys"
    host: str = "127.0.0.1"
    max_body: int = 25 * 2**20
    max_pixels: int = MAX_PIXELS
    max_in_flight: int = 128
    deadline: float = 30.0
    fetch_urls: bool = False
    allow_private_urls: bool = False
    uploads: Path = field(default_factory=lambda: Path("lookalike-uploads"))


class Keys:
    """API keys, some of which may write. Without any, everybody may everything: only for this machine itself."""

    def __init__(self, keys: dict[str, bool]) -> None:
        # Digests have one length: comparing them tells nothing of a key, not even how long it is.
        self._may_write = {hashlib.sha256(key.encode()).digest(): writes for key, writes in keys.items()}

    @classmethod
    def parse(cls, text: str) -> "Keys":
        """Read `key, key:write, …`. Raises BadSettings for one that could be guessed."""
        keys = {}
        for word in filter(None, (word.strip() for word in text.split(","))):
            key = word.removesuffix(_WRITE)
            if len(key) < _LEAST_KEY:
                raise BadSettings(
                    f"LOOKALIKE_API_KEYS holds a key of {len(key)} characters; take at least {_LEAST_KEY}, "
                    "such as the output of: openssl rand -hex 16"
                )
            keys[key] = word.endswith(_WRITE)
        return cls(keys)

    @property
    def required(self) -> bool:
        """Whether a request needs one."""
        return bool(self._may_write)

    def may_write(self, key: str) -> bool | None:
        """Tell whether a key may write; None for one that is not known. Takes the same time for every key."""
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        found = None
        for known, writes in self._may_write.items():
            if hmac.compare_digest(digest, known):
                found = writes
        return found


def is_loopback(host: str) -> bool:
    """Tell whether a host name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

"""Paths that are served without an API key."""

_PROBES = ("/health", "/ready")
_PUBLIC = ("/login", "/static/")


def is_probe(path: str) -> bool:
    """Whether a load balancer polls this path. It is served without limits, even while the service is overloaded."""
    return path in _PROBES


def is_public(path: str) -> bool:
    """Whether a browser needs this path before it has a key. Anyone can request it, so its limits are tighter."""
    return path.startswith(_PUBLIC)

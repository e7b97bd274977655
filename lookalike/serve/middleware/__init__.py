"""What every request passes before a route: request id and log, limits, API key, response headers.

`guard` runs the four in one ASGI pass; `request_log`, `limits`, `api_keys` and `headers` each hold one of them.
"""

from lookalike.serve.middleware.api_keys import KEY_COOKIE
from lookalike.serve.middleware.guard import RequestGuard

__all__ = ["KEY_COOKIE", "RequestGuard"]

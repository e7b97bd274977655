"""Headers that every response carries."""

from starlette.types import Message, Send

_NOT_STARTED = 499
"""The status in metrics and log when the client left before the response started; nginx uses it too."""

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class ResponseHeaders:
    """An ASGI `send` that adds the request id and the security headers, and remembers the status.

    Without `has_body` the body is left out; its length stays in the headers.
    """

    def __init__(self, send: Send, request_id: str, *, has_body: bool = True) -> None:
        self._send = send
        self._has_body = has_body
        self._headers = ((b"x-request-id", request_id.encode()), *_SECURITY_HEADERS)
        self.status = _NOT_STARTED

    @property
    def has_started(self) -> bool:
        """Whether the start of a response was sent."""
        return self.status != _NOT_STARTED

    async def __call__(self, message: Message) -> None:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), *self._headers]
        elif not self._has_body:
            message["body"] = b""
        await self._send(message)

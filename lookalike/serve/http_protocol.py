"""HTTP/1.1 by uvicorn, with a timeout that it lacks, and one response to a request that breaks off."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0


class HttpProtocol(H11Protocol):
    """Closes a connection whose next request line and headers are not complete after HEAD_SECONDS.

    Otherwise clients that send a byte now and then would use up the file handles of the process. What a client sends
    after the response, such as the rest of a body that was refused, is read for the same time.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the timer. From asyncio.Protocol."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Stop the timer when a request has begun to run, else let it go on. From asyncio.Protocol."""
        super().data_received(data)
        if not self._is_waiting():
            self._stop_timer()
        elif self._head_timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer. From asyncio.Protocol."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; a route that runs for it has nobody to respond to. From H11Protocol."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        cycle: Any = self.cycle
        if cycle is not None:
            # Otherwise the response of the route would be an exception, with a traceback in the log.
            cycle.disconnected = True
            cycle.message_event.set()

    def _is_waiting(self) -> bool:
        """Whether no request is in progress on this connection."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_if_waiting)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_if_waiting(self) -> None:
        self._head_timer = None
        if self._is_waiting():
            self.transport.close()

"""A server that is away for a moment is waited for; one that stays away is named."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import PLAIN, a_row

from schema import wire
from schema.errors import StoreUnavailable
from schema.store import Store


class Proxy:
    """Stands between client and server and can cut the line."""

    def __init__(self, target: str) -> None:
        self._target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self._open: list[socket.socket] = []
        self.connected = True
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.connected = False
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = self._server() if self.connected else None
                if server is None:
                    client.close()
                    continue
                self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _server(self) -> socket.socket | None:
        try:
            return socket.create_connection(self._target)
        except OSError:
            return None

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for end in (one, other):
            end.close()


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    between = Proxy(server)
    yield between
    between.close()


def test_a_write_waits_for_a_server_that_is_away(proxy: Proxy) -> None:
    with Store.create(proxy.uri, PLAIN, collection="away") as store:
        store.upsert([a_row("before.jpg")])
        proxy.cut()
        threading.Timer(3, lambda: setattr(proxy, "connected", True)).start()

        started = time.monotonic()
        store.upsert([a_row("after.jpg")])

        assert time.monotonic() - started > 2
        assert store.count() == 2


def test_a_server_that_stays_away_is_named(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.create(proxy.uri, PLAIN, collection="gone") as store:
        monkeypatch.setattr(wire, "GIVE_UP_AFTER", 2.0)
        monkeypatch.setitem(wire._CALL_TIMEOUT, "server", 2.0)
        proxy.cut()
        with pytest.raises(StoreUnavailable, match=f"{proxy.uri} does not answer.*Is it running"):
            store.upsert([a_row("lost.jpg")])

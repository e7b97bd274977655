"""A web server on this machine that behaves well or badly, as the path of a request says."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

IMAGE = bytes(range(256)) * 4
_OK = b"HTTP/1.1 200 OK\r\n"


class Site(BaseHTTPRequestHandler):
    """A web server that behaves well or badly, as the path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, _, rest = self.path.strip("/").partition("/")
        routes: dict[str, Callable[[str], None]] = {
            "image": self._image,
            "host": lambda _: self._answer(200, self.headers["Host"].encode()),
            "missing": lambda _: self._answer(404, b"a secret"),
            "to": lambda target: self._answer(302, b"", Location=unquote(target)),
            "loop": lambda _: self._answer(301, b"", Location=self.path),
            "hops": lambda left: self._answer(307, b"", Location="/image" if left == "1" else f"/hops/{int(left) - 1}"),
            "nowhere": lambda _: self._answer(302, b""),
            "long": lambda _: self._send(_OK + b"Content-Length: 1000000000\r\n\r\n"),
            "endless": lambda _: self._repeat(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n..\r\n" * 100),
            "drip": lambda _: self._repeat(_OK + b"Content-Length: 1000\r\n\r\n", b".", pause=0.05),
            "drip-headers": lambda _: self._repeat(_OK + b"X: ", b".", pause=0.05),
            "waits": lambda _: self._repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
            "silence": lambda _: time.sleep(1.5),
            "short": lambda _: self._send(_OK + b"Content-Length: 1000\r\n\r\n."),
            "gibberish": lambda _: self._send(b"\x00\x01\r\n\r\n"),
        }
        with suppress(OSError):
            routes[name](rest)
        self.close_connection = True

    def log_message(self, *_: object, **__: object) -> None:
        """Say nothing."""

    def _image(self, _: str) -> None:
        self._answer(200, IMAGE)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(body)

    def _repeat(self, head: bytes, part: bytes, pause: float = 0) -> None:
        self._send(head)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            self._send(part)
            time.sleep(pause)

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    request_queue_size = 64


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = Server(("127.0.0.1", 0), Site)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()

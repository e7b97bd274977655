"""A web server for tests; the query of the URL chooses how an image is served, correctly or with a fault.

    /NAME?size=3500000&transfer=chunked:8192&validator=etag

| option | value |
|---|---|
| size | bytes of the JPEG |
| transfer | length, chunked:BYTES, close, gzip, deflate or br |
| validator | etag, weak, date, both or none |
| ignores | 1: ignore the validators that the client sends |
| redirect | a status: redirect once, to the same image |
| to | a URL to redirect to |
| loop | 1: redirect to itself |
| ranges | bytes or none: the header Accept-Ranges |
| head | ok, 405 or lie: the response to HEAD |
| cut | close the connection after so many bytes |
| how | fin or reset: how `cut` closes it |
| status | answer with this error |
| after | seconds: the Retry-After of `status` |
| times | apply `cut` or `status` to the first so many requests only |
| page | 1: answer with HTML |
| delay | seconds before the response |
| hangs_up | 1: close the connection after the response, without `Connection: close` |
"""

import gzip
import io
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

from PIL import Image

_MAX_SEGMENT = 65_000
_WRITE_BYTES = 2**18
_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "br": bytes}
WRITTEN = 1_700_000_000
"""Last-Modified of the images, in seconds since 1970."""


@cache
def jpeg(size: int) -> bytes:
    """Return a JPEG of exactly `size` bytes; comments before the pixels pad it, so it decodes only when complete."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((96, 96)).rotate(size % 360).convert("RGB").save(file, "JPEG", quality=90)
    small = file.getvalue()
    missing = size - len(small)
    padding = bytearray()
    while missing:
        # The marker and length of a segment take four bytes.
        length = missing if missing <= _MAX_SEGMENT else min(_MAX_SEGMENT, missing - 4)
        padding += b"\xff\xfe" + struct.pack(">H", length - 2) + b"." * (length - 4)
        missing -= length
    return small[:2] + bytes(padding) + small[2:]


class ImageServer(ThreadingHTTPServer):
    """Records its requests in order: (method, path with query, status)."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, int]] = []
        self.body_bytes = 0
        self.concurrent = 0
        self.max_concurrent = 0
        self.connections = 0
        self.version = "1"
        """Part of each ETag and added to each date: change it to change every validator."""
        self.written = WRITTEN
        self.contents: dict[str, bytes] = {}
        """Name → bytes to serve instead of a JPEG of `size`."""
        self.authorizations: list[str] = []
        self.requests_by_path: Counter[str] = Counter()
        self.lock = threading.Lock()

    def url(self, name: str = "image.jpg", /, **options: object) -> str:
        """Return the URL of an image with these options."""
        return f"http://127.0.0.1:{self.server_port}/{name}?{urlencode(options)}"

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImageServer

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_HEAD(self) -> None:
        options = self._options()
        if options.get("head") == "405":
            self._send_plain(405)
            return
        length = {"lie": {"Content-Length": str(int(options["size"]) // 2)}}.get(options.get("head", ""), {})
        if not length and options["transfer"] == "length":
            length = {"Content-Length": options["size"]}
        self._send_headers(200, options, length)

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.concurrent += 1
            self.server.max_concurrent = max(self.server.concurrent, self.server.max_concurrent)
        try:
            with suppress(OSError):
                if "Authorization" in self.headers:
                    self.server.authorizations.append(self.headers["Authorization"])
                self._get(self._options())
        finally:
            with self.server.lock:
                self.server.concurrent -= 1

    def log_message(self, *_: object, **__: object) -> None:
        """Log nothing."""

    def _options(self) -> dict[str, str]:
        return {"size": "10000", "transfer": "length", **dict(parse_qsl(urlsplit(self.path).query))}

    def _get(self, options: dict[str, str]) -> None:
        time.sleep(float(options.get("delay", 0)))
        is_faulty = self._is_faulty(options)
        if "redirect" in options and not self.path.startswith("/final/"):
            self._send_plain(int(options["redirect"]), Location=f"/final{self.path}")
        elif "loop" in options:
            self._send_plain(302, Location=self.path)
        elif "to" in options:
            self._send_plain(302, Location=options["to"])
        elif "status" in options and is_faulty:
            self._send_plain(int(options["status"]), b"a secret", **{"Retry-After": options.get("after", "0")})
        elif "page" in options:
            self._send_plain(200, b"<!DOCTYPE html><title>Not found</title>", **{"Content-Type": "text/html"})
        elif self._is_unchanged(options):
            self._send_headers(304, options, {})
        else:
            self._send_image(options, cut=int(options["cut"]) if "cut" in options and is_faulty else None)
        if "hangs_up" in options:
            self.close_connection = True

    def _is_faulty(self, options: dict[str, str]) -> bool:
        """Count the request; return whether `cut` or `status` applies to it."""
        with self.server.lock:
            self.server.requests_by_path[self.path] += 1
            return self.server.requests_by_path[self.path] <= int(options.get("times", 1_000_000))

    def _is_unchanged(self, options: dict[str, str]) -> bool:
        if options.get("ignores"):
            return False
        headers = self._validators(options)
        etag = self.headers.get("If-None-Match")
        if etag is not None:
            return etag == headers.get("ETag")
        since = self.headers.get("If-Modified-Since")
        return since is not None and since == headers.get("Last-Modified")

    def _validators(self, options: dict[str, str]) -> dict[str, str]:
        kind, headers = options.get("validator", "none"), {}
        if kind in ("etag", "both", "weak"):
            headers["ETag"] = f'{"W/" if kind == "weak" else ""}"{options["size"]}-{self.server.version}"'
        if kind in ("date", "both"):
            headers["Last-Modified"] = formatdate(self.server.written + int(self.server.version) - 1, usegmt=True)
        return headers

    def _send_image(self, options: dict[str, str], cut: int | None) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        content = self.server.contents.get(name) or jpeg(int(options["size"]))
        kind, _, chunk = options["transfer"].partition(":")
        headers, body = {}, content
        if kind in ("gzip", "deflate", "br"):
            body = _ENCODINGS[kind](content)
            headers["Content-Encoding"] = kind
        if kind == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif kind != "close":
            headers["Content-Length"] = str(len(body))
        self.close_connection = kind == "close"
        self._send_headers(200, options, headers)
        if kind == "chunked":
            self._send_chunks(body, int(chunk), cut)
        else:
            for start in range(0, len(body) if cut is None else cut, _WRITE_BYTES):
                self._write(body[start : start + _WRITE_BYTES if cut is None else min(start + _WRITE_BYTES, cut)])
        if cut is not None:
            self._close_early(options.get("how", "fin"))

    def _send_chunks(self, body: bytes, size: int, cut: int | None) -> None:
        end = len(body) if cut is None else cut
        written = bytearray()
        for start in range(0, end, size):
            chunk = body[start : start + size]
            written += b"%x\r\n%b\r\n" % (len(chunk), chunk)
            if len(written) > 2**16:
                self._write(bytes(written))
                written.clear()
        self._write(bytes(written) + (b"0\r\n\r\n" if cut is None else b""))

    def _close_early(self, how: str) -> None:
        self.close_connection = True
        self.wfile.flush()
        if how == "reset":
            # Let the client read what has arrived: a reset discards its receive buffer.
            time.sleep(0.05)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _write(self, content: bytes) -> None:
        with self.server.lock:
            self.server.body_bytes += len(content)
        self.wfile.write(content)

    def _send_headers(self, status: int, options: dict[str, str], headers: dict[str, str]) -> None:
        self._record(status)
        self.send_response(status)
        ranges = {"Accept-Ranges": options["ranges"]} if "ranges" in options else {}
        kind = {"Content-Type": "image/jpeg"} if status == 200 else {}
        for name, value in {**kind, **ranges, **self._validators(options), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_plain(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._record(status)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self._write(body)

    def _record(self, status: int) -> None:
        with self.server.lock:
            self.server.requests.append((self.command, self.path, status))


@contextmanager
def image_server() -> Iterator[ImageServer]:
    """Run a server until the end of the block."""
    with ImageServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()

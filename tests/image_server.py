"""A web server that serves images in every way that servers do, well or badly, as the query of the URL says.

    /NAME?size=3500000&transfer=chunked:8192&validator=etag

`size`: bytes of the JPEG. `transfer`: length, chunked:BYTES, close, gzip, deflate, br. `validator`: etag, weak, date,
both or none; with `ignores`, what the client says of them is ignored. `redirect`: a status that leads here; `to`:
where one leads; `loop`: to itself. `ranges`: bytes or none. `head`: ok, 405 or lie. `cut`: after so many bytes the
connection ends, by `how`: fin or reset; `times`: only so often. `status`: an error instead, `times`: only so often,
`after`: with that Retry-After. `page`: HTML. `delay`: seconds. `hangs_up`: the connection is closed afterwards, without
a word.
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

_SEGMENT = 65_000
_PART = 2**18
_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "br": bytes}
WRITTEN = 1_700_000_000
"""When the images were last changed, in seconds: a Last-Modified."""


@cache
def jpeg(size: int) -> bytes:
    """A JPEG of exactly so many bytes that decodes only when it is whole: comments fill it up before the pixels."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((96, 96)).rotate(size % 360).convert("RGB").save(file, "JPEG", quality=90)
    small = file.getvalue()
    missing = size - len(small)
    padding = bytearray()
    while missing:
        # A segment has four bytes of its own.
        length = missing if missing <= _SEGMENT else min(_SEGMENT, missing - 4)
        padding += b"\xff\xfe" + struct.pack(">H", length - 2) + b"." * (length - 4)
        missing -= length
    return small[:2] + bytes(padding) + small[2:]


class ImageServer(ThreadingHTTPServer):
    """Counts its requests: `requests` are (method, path with query, status) in their order."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, int]] = []
        self.body_bytes = 0
        self.at_once = 0
        self.most_at_once = 0
        self.connections = 0
        self.version = "1"
        """Part of each ETag: change it, and all images have changed for who asks by ETag."""
        self.written = WRITTEN
        self.contents: dict[str, bytes] = {}
        """What is served under some names instead of an image of `size`."""
        self.authorizations: list[str] = []
        self.stumbles: Counter[str] = Counter()
        self.lock = threading.Lock()

    def url(self, name: str = "image.jpg", /, **options: object) -> str:
        """The URL of an image that is served so."""
        return f"http://127.0.0.1:{self.server_port}/{name}?{urlencode(options)}"

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error."""


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
            self._plain(405)
            return
        told = {"lie": {"Content-Length": str(int(options["size"]) // 2)}}.get(options.get("head", ""), {})
        if not told and options["transfer"] == "length":
            told = {"Content-Length": options["size"]}
        self._start(200, options, told)

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.at_once, self.server.most_at_once)
        try:
            with suppress(OSError):
                if "Authorization" in self.headers:
                    self.server.authorizations.append(self.headers["Authorization"])
                self._get(self._options())
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def log_message(self, *_: object, **__: object) -> None:
        """Say nothing."""

    def _options(self) -> dict[str, str]:
        return {"size": "10000", "transfer": "length", **dict(parse_qsl(urlsplit(self.path).query))}

    def _get(self, options: dict[str, str]) -> None:
        time.sleep(float(options.get("delay", 0)))
        stumbles = self._stumbles(options)
        if "redirect" in options and not self.path.startswith("/final/"):
            self._plain(int(options["redirect"]), Location=f"/final{self.path}")
        elif "loop" in options:
            self._plain(302, Location=self.path)
        elif "to" in options:
            self._plain(302, Location=options["to"])
        elif "status" in options and stumbles:
            self._plain(int(options["status"]), b"a secret", **{"Retry-After": options.get("after", "0")})
        elif "page" in options:
            self._plain(200, b"<!DOCTYPE html><title>Not found</title>", **{"Content-Type": "text/html"})
        elif self._is_unchanged(options):
            self._start(304, options, {})
        else:
            self._send(options, cut=int(options["cut"]) if "cut" in options and stumbles else None)
        if "hangs_up" in options:
            self.close_connection = True

    def _stumbles(self, options: dict[str, str]) -> bool:
        with self.server.lock:
            self.server.stumbles[self.path] += 1
            return self.server.stumbles[self.path] <= int(options.get("times", 1_000_000))

    def _is_unchanged(self, options: dict[str, str]) -> bool:
        if options.get("ignores"):
            return False
        headers = self._validators(options)
        asked = self.headers.get("If-None-Match")
        if asked is not None:
            return asked == headers.get("ETag")
        since = self.headers.get("If-Modified-Since")
        return since is not None and since == headers.get("Last-Modified")

    def _validators(self, options: dict[str, str]) -> dict[str, str]:
        kind, found = options.get("validator", "none"), {}
        if kind in ("etag", "both", "weak"):
            found["ETag"] = f'{"W/" if kind == "weak" else ""}"{options["size"]}-{self.server.version}"'
        if kind in ("date", "both"):
            found["Last-Modified"] = formatdate(self.server.written + int(self.server.version) - 1, usegmt=True)
        return found

    def _send(self, options: dict[str, str], cut: int | None) -> None:
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
        self._start(200, options, headers)
        if kind == "chunked":
            self._chunks(body, int(chunk), cut)
        else:
            for start in range(0, len(body) if cut is None else cut, _PART):
                self._write(body[start : start + _PART if cut is None else min(start + _PART, cut)])
        if cut is not None:
            self._break_off(options.get("how", "fin"))

    def _chunks(self, body: bytes, size: int, cut: int | None) -> None:
        whole = len(body) if cut is None else cut
        written = bytearray()
        for start in range(0, whole, size):
            part = body[start : start + size]
            written += b"%x\r\n%b\r\n" % (len(part), part)
            if len(written) > 2**16:
                self._write(bytes(written))
                written.clear()
        self._write(bytes(written) + (b"0\r\n\r\n" if cut is None else b""))

    def _break_off(self, how: str) -> None:
        self.close_connection = True
        self.wfile.flush()
        if how == "reset":
            # Let the client read what has come: a reset throws away what waits in its buffer.
            time.sleep(0.05)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _write(self, part: bytes) -> None:
        with self.server.lock:
            self.server.body_bytes += len(part)
        self.wfile.write(part)

    def _start(self, status: int, options: dict[str, str], headers: dict[str, str]) -> None:
        self._count(status)
        self.send_response(status)
        ranges = {"Accept-Ranges": options["ranges"]} if "ranges" in options else {}
        kind = {"Content-Type": "image/jpeg"} if status == 200 else {}
        for name, value in {**kind, **ranges, **self._validators(options), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _plain(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._count(status)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self._write(body)

    def _count(self, status: int) -> None:
        with self.server.lock:
            self.server.requests.append((self.command, self.path, status))


@contextmanager
def image_server() -> Iterator[ImageServer]:
    """Serve until the end of the block."""
    with ImageServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()

"""Decoding in processes of its own, where threads would wait for Python's lock: `python -m encode.decoders FD`.

A thread of this process hands over the bytes of a picture and gets its pixels back, both without the lock. A process
that dies of a picture takes no other one with it.
"""

import pickle
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType

import numpy as np

from encode.budget import PixelBudget
from encode.decode import open_picture, reduce, unpack
from encode.machine import keep_freed_memory
from encode.preprocess import Pixels, Preprocessing
from schema.errors import BadImage, EncoderUnavailable

_LENGTH = struct.Struct("<q")
_ANSWER = struct.Struct("<cq")
_PIXELS, _BAD, _LARGE = b"p", b"b", b"l"
"""What an answer is: so many bytes of pixels, or of a reason, or a picture of so many pixels, which waits."""

_GO = b"!"
_ATTEMPTS = 2
_NOT_STARTED = "a process that decodes cannot be started ({}); take --decode-processes 0"


class Decoders:
    """Processes that decode and prepare pictures; called by as many threads.

    Each may decode pictures of its part of `most` pixels as it likes; larger ones wait for the caller's budget. So at
    most twice as many pixels are decoded at the same time.
    """

    def __init__(self, prepare: Preprocessing, processes: int, most: int) -> None:
        self._prepare = prepare
        self._children = [_Child(prepare, most, most // processes) for _ in range(processes)]
        self._free: SimpleQueue[_Child] = SimpleQueue()
        for child in self._children:
            self._free.put(child)

    def __call__(self, content: bytes, budget: PixelBudget) -> Pixels:
        """Decode one picture and prepare it: uint8 (height, width, 3). Raises BadImage, EncoderUnavailable."""
        child = self._free.get()
        try:
            pixels = np.empty((self._prepare.height, self._prepare.width, 3), dtype=np.uint8)
            for _ in range(_ATTEMPTS):
                try:
                    child.decode(content, budget, pixels)
                    return pixels
                except ConnectionError:  # it is dead
                    child.start_again()
            raise BadImage(f"{_ATTEMPTS} processes died while they decoded it; make it anew, or smaller")
        finally:
            self._free.put(child)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [child.process.pid for child in self._children]

    def close(self) -> None:
        """End the processes. They also end with this process, however that ends."""
        for child in self._children:
            child.close()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


class _Child:
    """A process, and the connection to it."""

    def __init__(self, prepare: Preprocessing, most: int, share: int) -> None:
        self._told = pickle.dumps((prepare, most, share))
        self.start()

    def start(self) -> None:
        """Start it; that it is ready is seen with the first picture. Raises EncoderUnavailable."""
        self._ready = False
        self._ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "encode.decoders", str(theirs.fileno())]
            try:
                self.process = subprocess.Popen(  # noqa: S603  our own
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            except OSError as error:
                raise EncoderUnavailable(_NOT_STARTED.format(error)) from error

    def start_again(self) -> None:
        self.close()
        self.start()

    def decode(self, content: bytes, budget: PixelBudget, pixels: Pixels) -> None:
        """Have a picture decoded into `pixels`. Raises BadImage, and ConnectionError where the process died."""
        if not self._ready:
            self._greet()
        _send(self._ours, content)
        kind, number = self._answer()
        if kind == _LARGE:
            with budget.take(number):
                self._ours.sendall(_GO)
                kind, number = self._answer()
        if kind == _BAD:
            raise BadImage(_received(self._ours, number).decode())
        _fill(self._ours, pixels.data.cast("B"))

    def _greet(self) -> None:
        """Tell it what to do. Raises EncoderUnavailable where it cannot even begin, which is no picture's fault."""
        try:
            _send(self._ours, self._told)
            _received(self._ours, len(_GO))
        except ConnectionError as error:
            status = self.process.wait()
            if status < 0:  # somebody has killed it
                raise
            raise EncoderUnavailable(_NOT_STARTED.format(f"exit status {status}")) from error
        self._ready = True

    def close(self) -> None:
        self._ours.close()
        self.process.wait()

    def _answer(self) -> tuple[bytes, int]:
        kind, number = _ANSWER.unpack(_received(self._ours, _ANSWER.size))
        return kind, number


def serve(connection: socket.socket) -> None:
    """Decode what comes, until nobody is there any more."""
    prepare, most, share = pickle.loads(_message(connection))  # noqa: S301  from the process that has started this one
    connection.sendall(_GO)
    while True:
        content = _message(connection)
        try:
            image = reduce(open_picture(content, most), prepare.edge)
            if image.width * image.height > share:
                connection.sendall(_ANSWER.pack(_LARGE, image.width * image.height))
                _received(connection, len(_GO))
            pixels = prepare(unpack(image))
        except BadImage as error:
            reason = str(error).encode(errors="replace")
            connection.sendall(_ANSWER.pack(_BAD, len(reason)) + reason)
        else:
            connection.sendall(_ANSWER.pack(_PIXELS, pixels.nbytes))
            connection.sendall(np.ascontiguousarray(pixels).data)


def _send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(content)))
    connection.sendall(content)


def _message(connection: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_received(connection, _LENGTH.size))
    return _received(connection, length)


def _received(connection: socket.socket, length: int) -> bytes:
    content = bytearray(length)
    _fill(connection, memoryview(content))
    return bytes(content)


def _fill(connection: socket.socket, rest: memoryview) -> None:
    """Receive as many bytes as there is room for. Raises ConnectionError at the end of the connection."""
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise ConnectionResetError("the other side is gone")
        rest = rest[count:]


def main() -> None:
    """Serve the connection whose number is on the command line."""
    import signal

    # They may be sent to a whole group of processes; the one that has started this one says when it ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(ConnectionError):
        serve(connection)


if __name__ == "__main__":
    main()

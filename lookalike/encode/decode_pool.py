"""Decoding in processes, where threads would wait for Python's lock: `python -m lookalike.encode.decode_pool FD`.

A thread of this process hands over the bytes of an image and gets its pixels back, both without the lock. A process
that dies of an image takes no other one with it.
"""

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from queue import SimpleQueue

import numpy as np

from lookalike.encode.decode import load_rgb, open_image, reduce_on_decode
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels, Preprocessing
from lookalike.schema.errors import BadImage, EncoderUnavailable

_LENGTH = struct.Struct("<q")
_ANSWER = struct.Struct("<cq")
_PIXELS, _BAD, _LARGE = b"p", b"b", b"l"
"""What an answer is: so many bytes of pixels, or of a reason, or an image of so many pixels, which waits."""

_GO = b"!"
_ATTEMPTS = 2
_MOST_LOST = 3
"""So many images one after the other that processes died of are no images' fault."""


class DecodePool:
    """Processes that decode and prepare images; called by as many threads.

    Each is started by the first image that needs it, and ends with this process, however that ends. It may decode
    images of its part of `most` pixels as it likes; larger ones wait for the caller's budget. So at most twice as
    many pixels are decoded at the same time.
    """

    def __init__(self, prepare: Preprocessing, processes: int, most: int) -> None:
        self._prepare = prepare
        self._children = [_Child(prepare, most, most // processes) for _ in range(processes)]
        self._lost = 0
        self._free: SimpleQueue[_Child] = SimpleQueue()
        for child in self._children:
            self._free.put(child)

    def __call__(self, content: bytes, budget: PixelBudget) -> Pixels:
        """Decode one image and prepare it: uint8 (height, width, 3).

        Raises BadImage, and EncoderUnavailable where no process can be had, or all of them die.
        """
        child = self._free.get()
        try:
            return self._decoded(child, content, budget)
        finally:
            self._free.put(child)

    @property
    def pids(self) -> list[int]:
        """The processes that were started."""
        return [child.process.pid for child in self._children if child.process]

    def close(self) -> None:
        """End the processes; a further image starts them again."""
        for child in self._children:
            child.end()

    def _decoded(self, child: "_Child", content: bytes, budget: PixelBudget) -> Pixels:
        pixels = np.empty((self._prepare.height, self._prepare.width, 3), dtype=np.uint8)
        for _ in range(_ATTEMPTS):
            try:
                child.decode(content, budget, pixels)
            except ConnectionError:  # it has died
                continue
            self._lost = 0
            return pixels
        self._lost += 1
        if self._lost >= _MOST_LOST:
            raise EncoderUnavailable(
                f"the processes that decode die ({child.died_of}): does the memory suffice? "
                "Take a smaller --decode-processes or --max-pixels, or --decode-processes 0"
            )
        raise BadImage(f"{_ATTEMPTS} processes died of it ({child.died_of}); make it anew, or smaller")


class _Child:
    """A process, once it is needed, and the connection to it."""

    def __init__(self, prepare: Preprocessing, most: int, share: int) -> None:
        self._told = pickle.dumps((prepare, most, share))
        self.process: subprocess.Popen[bytes] | None = None
        self.died_of = ""

    def decode(self, content: bytes, budget: PixelBudget, pixels: Pixels) -> None:
        """Decode an image into `pixels`. Raises BadImage, EncoderUnavailable, and ConnectionError when it has died."""
        try:
            connection = self._connection if self.process else self._start()
            _send(connection, content)
            kind, number = _answer(connection)
            if kind == _LARGE:
                with budget.take(number):
                    connection.sendall(_GO)
                    kind, number = _answer(connection)
            reason = _received(connection, number).decode() if kind == _BAD else None
            if reason is None:
                _fill(connection, pixels.data.cast("B"))
        # Whatever it is, the next image must not get the rest of this one's answer.
        except BaseException:
            self.end()
            raise
        if reason is not None:
            raise BadImage(reason)

    def end(self) -> None:
        """End the process; the next image starts another one."""
        process, self.process = self.process, None
        if process:
            self._connection.close()
            self.died_of = _fate(process.wait())

    def _start(self) -> socket.socket:
        """Start it, and wait until it is ready. Raises EncoderUnavailable: that is no image's fault."""
        try:
            self._connection, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-P", "-m", "lookalike.encode.decode_pool", str(theirs.fileno())]
                self.process = subprocess.Popen(  # noqa: S603  our own
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # numpy would start a thread for each core, and each process all of them.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    # Ctrl-C is for the process that has started it, which says when it ends.
                    process_group=0,
                )
            _send(self._connection, self._told)
            _received(self._connection, len(_GO))
        except OSError as error:
            self.end()
            reason = self.died_of if isinstance(error, ConnectionError) else error
            raise EncoderUnavailable(
                f"a process that decodes cannot be started ({reason}); take --decode-processes 0"
            ) from error
        return self._connection


def serve(connection: socket.socket) -> None:
    """Decode what comes, until nobody is there any more."""
    prepare, most, share = pickle.loads(_message(connection))  # noqa: S301  from the process that has started this one
    connection.sendall(_GO)
    while True:
        content = _message(connection)
        try:
            image = reduce_on_decode(open_image(content, most), prepare.edge)
            if image.width * image.height > share:
                connection.sendall(_ANSWER.pack(_LARGE, image.width * image.height))
                _received(connection, len(_GO))
            pixels = prepare(load_rgb(image))
        except BadImage as error:
            reason = str(error).encode(errors="replace")
            connection.sendall(_ANSWER.pack(_BAD, len(reason)) + reason)
        else:
            connection.sendall(_ANSWER.pack(_PIXELS, pixels.nbytes))
            connection.sendall(np.ascontiguousarray(pixels).data)


def _answer(connection: socket.socket) -> tuple[bytes, int]:
    kind, number = _ANSWER.unpack(_received(connection, _ANSWER.size))
    return kind, number


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


def _fate(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def main() -> None:
    """Serve the connection whose number is on the command line."""
    # It may be sent to all processes of a service; the one that has started this one says when it ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(ConnectionError):
        serve(connection)


if __name__ == "__main__":
    main()

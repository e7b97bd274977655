"""Decodes in processes, where threads would wait for the GIL: `python -m lookalike.encode.decode_pool FD`.

A thread of this process sends the bytes of an image and receives its pixels, both without the lock. An image that
crashes its process does not affect the others.
"""

import json
import os
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
_REPLY = struct.Struct("<cq")
_PIXELS, _BAD, _LARGE = b"p", b"b", b"l"
"""The kind of a reply and its number N: N bytes of pixels, N bytes of a reason, or an image of N pixels that waits."""

_GO = b"!"
_ATTEMPTS = 2
_MAX_CRASHES = 3
"""Images in a row that crash their processes: then the images are not the cause."""


class DecodePool:
    """Processes that decode and prepare images; called by as many threads.

    A process is started by the first image that needs it, and ends with this process, however that ends. At any time it
    may decode images of up to its share of `max_pixels`; larger ones wait for the caller's budget. So at most twice
    `max_pixels` are decoded at the same time.
    """

    def __init__(self, prepare: Preprocessing, processes: int, max_pixels: int) -> None:
        self._prepare = prepare
        self._processes = [_DecodeProcess(prepare, max_pixels, max_pixels // processes) for _ in range(processes)]
        self._crashes = 0
        self._free: SimpleQueue[_DecodeProcess] = SimpleQueue()
        for process in self._processes:
            self._free.put(process)

    def __call__(self, content: bytes, budget: PixelBudget) -> Pixels:
        """Decode one image and prepare it: uint8 (height, width, 3).

        Raises BadImage, and EncoderUnavailable where no process can be started, or all of them crash.
        """
        process = self._free.get()
        try:
            return self._decode(process, content, budget)
        finally:
            self._free.put(process)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that were started."""
        return [process.popen.pid for process in self._processes if process.popen]

    def close(self) -> None:
        """End the processes; a further image starts them again."""
        for process in self._processes:
            process.end()

    def _decode(self, process: "_DecodeProcess", content: bytes, budget: PixelBudget) -> Pixels:
        pixels = np.empty((self._prepare.height, self._prepare.width, 3), dtype=np.uint8)
        for _ in range(_ATTEMPTS):
            try:
                process.decode(content, budget, pixels)
            except ConnectionError:  # the process has died
                continue
            self._crashes = 0
            return pixels
        self._crashes += 1
        if self._crashes >= _MAX_CRASHES:
            raise EncoderUnavailable(
                f"decode processes crash again and again ({process.exit_reason}), maybe for lack of memory; "
                "use a smaller --decode-processes or --max-pixels, or --decode-processes 0"
            )
        raise BadImage(f"{_ATTEMPTS} processes crashed on it ({process.exit_reason}); save it anew, or make it smaller")


class _DecodeProcess:
    """One process, once it is needed, and the connection to it."""

    def __init__(self, prepare: Preprocessing, max_pixels: int, max_unreserved: int) -> None:
        self._settings = json.dumps([prepare.to_json(), max_pixels, max_unreserved]).encode()
        self.popen: subprocess.Popen[bytes] | None = None
        self.exit_reason = ""

    def decode(self, content: bytes, budget: PixelBudget, pixels: Pixels) -> None:
        """Decode an image into `pixels`. Raises BadImage, EncoderUnavailable, and ConnectionError when it has died."""
        try:
            connection = self._connection if self.popen else self._start()
            _send(connection, content)
            kind, number = _receive_reply(connection)
            if kind == _LARGE:
                with budget.reserve(number):
                    connection.sendall(_GO)
                    kind, number = _receive_reply(connection)
            reason = _receive(connection, number).decode() if kind == _BAD else None
            if reason is None:
                _receive_into(connection, pixels.data.cast("B"))
        # After any error the connection may hold the rest of this reply, which the next image must not get.
        except BaseException:
            self.end()
            raise
        if reason is not None:
            raise BadImage(reason)

    def end(self) -> None:
        """End the process; the next image starts another one."""
        popen, self.popen = self.popen, None
        if popen:
            self._connection.close()
            self.exit_reason = _describe_exit(popen.wait())

    def _start(self) -> socket.socket:
        """Start the process, and wait until it is ready. Raises EncoderUnavailable."""
        try:
            self._connection, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-P", "-m", "lookalike.encode.decode_pool", str(theirs.fileno())]
                self.popen = subprocess.Popen(  # noqa: S603  our own command
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # numpy would start a thread for each core, in each of the processes.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    # Ctrl-C goes to the process group of the parent only, which ends this one.
                    process_group=0,
                )
            _send(self._connection, self._settings)
            _receive(self._connection, len(_GO))
        except OSError as error:
            self.end()
            reason = self.exit_reason if isinstance(error, ConnectionError) else error
            raise EncoderUnavailable(
                f"a decode process cannot be started ({reason}); use --decode-processes 0"
            ) from error
        return self._connection


def serve(connection: socket.socket) -> None:
    """Decode what arrives, until the parent closes the connection: then ConnectionError is raised."""
    preprocessing, max_pixels, max_unreserved = json.loads(_receive_message(connection))
    prepare = Preprocessing.from_json(preprocessing)
    connection.sendall(_GO)
    while True:
        content = _receive_message(connection)
        try:
            image = reduce_on_decode(open_image(content, max_pixels), prepare.edge)
            if image.width * image.height > max_unreserved:
                connection.sendall(_REPLY.pack(_LARGE, image.width * image.height))
                _receive(connection, len(_GO))
            pixels = prepare(load_rgb(image))
        except BadImage as error:
            reason = str(error).encode(errors="replace")
            connection.sendall(_REPLY.pack(_BAD, len(reason)) + reason)
        else:
            connection.sendall(_REPLY.pack(_PIXELS, pixels.nbytes))
            connection.sendall(np.ascontiguousarray(pixels).data)


def _receive_reply(connection: socket.socket) -> tuple[bytes, int]:
    kind, number = _REPLY.unpack(_receive(connection, _REPLY.size))
    return kind, number


def _send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(content)))
    connection.sendall(content)


def _receive_message(connection: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
    return _receive(connection, length)


def _receive(connection: socket.socket, length: int) -> bytes:
    content = bytearray(length)
    _receive_into(connection, memoryview(content))
    return bytes(content)


def _receive_into(connection: socket.socket, buffer: memoryview) -> None:
    """Fill a buffer. Raises ConnectionError when the other side closes the connection."""
    while buffer:
        count = connection.recv_into(buffer)
        if not count:
            raise ConnectionResetError("the other side has closed the connection")
        buffer = buffer[count:]


def _describe_exit(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def main() -> None:
    """Serve the connection whose file descriptor is on the command line."""
    # A service manager may send SIGTERM to all processes of a service; the parent says when this one ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(ConnectionError):
        serve(connection)


if __name__ == "__main__":
    main()

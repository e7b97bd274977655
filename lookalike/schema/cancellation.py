"""A token by which one part of a program asks another to stop."""

import threading


class RunCancelled(KeyboardInterrupt):
    """A run was stopped by its cancel token.

    It is a KeyboardInterrupt, so that no `except Exception` on the way swallows it.
    """


class CancelToken:
    """Is passed to a run, which checks it where it can stop without losing anything. Safe to use from threads."""

    def __init__(self) -> None:
        self.event = threading.Event()
        """Set by `cancel`; for code that waits on an event."""

    def cancel(self) -> None:
        """Ask all holders of the token to stop."""
        self.event.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self.event.is_set()

    def check(self) -> None:
        """Raise RunCancelled when `cancel` was called."""
        if self.event.is_set():
            raise RunCancelled("the run was cancelled")

    def wait(self, seconds: float) -> bool:
        """Wait until `cancel` is called, at most so many seconds; return whether it was."""
        return self.event.wait(seconds)

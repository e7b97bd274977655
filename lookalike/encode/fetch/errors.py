"""Why a fetch failed.

FetchFailed
├── AddressRefused          the host leads to an address that may not be reached
└── TransientFailure        another attempt may succeed: it is retried within the limits
    └── IncompleteBody      fewer bytes arrived than were promised

A message is a clause: what the server or the network did.
"""

import ssl

import httpcore2

from lookalike.schema.errors import LookalikeError

_UNITS = ((10**6, 10**6, "MB"), (10**4, 10**3, "kB"), (0, 1, "bytes"))
"""From how many bytes on, in units of how many, by which name."""


class FetchFailed(LookalikeError):
    """An image could not be fetched from its URL.

    Remedy: open the URL yourself; the next ingest tries it again.
    """


class AddressRefused(FetchFailed):
    """The host leads to an address that may not be reached.

    Remedy: for images on your own network, add `--allow-private-urls`.
    """


class TransientFailure(FetchFailed):
    """A failure that another attempt may overcome, not before `retry_after` seconds where the server says so.

    Remedy: nothing, if the summary counts no rejection: it is retried. Otherwise run the ingest again later.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class IncompleteBody(TransientFailure):
    """The body ended before it was whole.

    Remedy: as above.
    """

    @classmethod
    def of(cls, arrived: int, promised: int | None) -> "IncompleteBody":
        """Say how many bytes arrived, and of how many where the server has said that."""
        return cls(f"incomplete: {describe_progress(arrived, promised)} arrived")


def describe_progress(arrived: int, promised: int | None) -> str:
    """Write numbers of bytes as `1.2 of 3.5 MB`."""
    largest = arrived if promised is None else promised
    unit, name = next((unit, name) for minimum, unit, name in _UNITS if largest >= minimum)
    figures = [arrived / unit] if promised is None else [arrived / unit, promised / unit]
    text = " of ".join(f"{figure:.1f}" if unit > 1 else f"{figure:.0f}" for figure in figures)
    return f"{text} {name}"


def to_fetch_failed(error: Exception) -> FetchFailed:
    """Turn an error of the HTTP client into one of ours."""
    # httpcore's pool drops the cause; the error still has it as its argument.
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchFailed(f"its certificate is not valid ({cause.verify_message.rstrip('.')})")
    if isinstance(error, httpcore2.ConnectTimeout):
        return TransientFailure("no connection in time")
    if isinstance(error, httpcore2.TimeoutException):
        return TransientFailure("the server sent nothing for too long")
    if isinstance(error, httpcore2.NetworkError):
        reason = cause.strerror if isinstance(cause, OSError) else None
        return TransientFailure(f"the connection failed ({reason})" if reason else "the connection failed")
    return TransientFailure("the server closed the connection, or did not answer in HTTP")

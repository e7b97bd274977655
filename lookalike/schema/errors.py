"""Every error that lookalike raises on purpose. Its message says what failed, with which value, and what to do next.

LookalikeError
  BadSettings           a setting is invalid
  BadSource             the folder or manifest cannot be read as a catalogue
  BadImage              one image cannot be read: it is reported, the run goes on
  BadRow                a row that Milvus would refuse or damage
  BadQuery              a query is invalid
  BadFilter             a filter is invalid
  UnknownProduct        the product is not in the collection
  EncoderMismatch       the collection was filled by another encoder
  EncoderUnavailable    the weights or the device of an encoder cannot be loaded
  LimitExceeded         a limit, such as --max-removals, was exceeded
  AlreadyRunning        another run is writing the same rows
  ProcessFailed         a process of the local stack does not keep running
  StoreUnavailable      Milvus cannot be reached, or refused a call
    StoreUnreachable    Milvus cannot be reached
    ResponseTooLarge    a response is larger than Milvus sends
    DiskFull            Milvus Lite has no room to write

Defined in the package that raises them: FetchFailed (encode/fetch), DeadlineExceeded (serve/runtime), ServiceError and
ServiceUnreachable (serve/client).
"""


class LookalikeError(Exception):
    """The base class: catch it to catch every error that lookalike raises on purpose.

    A caller of the service reads `public` in place of a message that names commands, options or paths of the server.
    """

    def __init__(self, message: str = "", *, public: str | None = None) -> None:
        super().__init__(message)
        self.public = public


class BadSettings(LookalikeError):
    """A setting is invalid."""


class BadSource(LookalikeError):
    """The source cannot be read as a catalogue at all."""


class BadImage(LookalikeError):
    """One image cannot be read. An ingest reports it and goes on."""


class BadRow(LookalikeError):
    """Milvus would refuse or damage a row. No row of its batch was sent."""


class BadQuery(LookalikeError):
    """A query is invalid."""


class BadFilter(LookalikeError):
    """A filter is invalid."""


class UnknownProduct(LookalikeError):
    """The collection has no image of the product."""


class EncoderMismatch(LookalikeError):
    """The collection has the vectors of another encoder, which cannot be compared with this one's."""


class EncoderUnavailable(LookalikeError):
    """The weights or the device of an encoder cannot be loaded. The message names the ways to get them."""


class LimitExceeded(LookalikeError):
    """A limit, such as --max-removals, was exceeded. Nothing was done beyond it."""


class AlreadyRunning(LookalikeError):
    """Another run is writing the same rows."""


class ProcessFailed(LookalikeError):
    """A process of the local stack does not keep running. The message ends with its last output."""


class StoreUnavailable(LookalikeError):
    """Milvus cannot be reached, or refused a call."""


class StoreUnreachable(StoreUnavailable):
    """Milvus cannot be reached, so no call would succeed."""


class ResponseTooLarge(StoreUnavailable):
    """A response has more bytes than Milvus sends. Request fewer rows or columns at once."""


class DiskFull(StoreUnavailable):
    """The disk has too little room for Milvus Lite to write safely."""

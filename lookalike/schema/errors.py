"""Every error that lookalike raises on purpose. Its message says what failed, with which value, and what to do next.

LookalikeError
  BadSettings           a setting is invalid
    DuplicateSource     the images of a new source are in the collection already, as another source
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

`make docs` writes docs/errors.md from the docstrings: what has happened, and after "Remedy:" what to do.

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
    """A setting, an option or an argument is invalid, or names something that does not exist.

    Remedy: correct the value that the message names; `lookalike COMMAND --help` lists what is allowed.
    """


class DuplicateSource(BadSettings):
    """The images of a new source are in the collection already, as another source. Nothing was written.

    Remedy: say which it is: the source has moved (`--move-source`), is the same one (`--source-name` OLD), or another.
    """


class BadSource(LookalikeError):
    """The folder or manifest cannot be read as a catalogue at all. Nothing was deleted.

    Remedy: check its path, its mount and its encoding, or name its columns or its layout as the message says; then
    run again.
    """


class BadImage(LookalikeError):
    """One image cannot be read. An ingest reports it and goes on; its row, if there is one, stays.

    Remedy: save the image anew as JPEG or PNG, or make it smaller; the next ingest takes it.
    """


class BadRow(LookalikeError):
    """Milvus would refuse or damage a row. No row of its batch was sent.

    Remedy: shorten or correct the column that the message names.
    """


class BadQuery(LookalikeError):
    """A query is invalid: its image cannot be read, or its parts do not go together.

    Remedy: correct the part that the message names.
    """


class BadFilter(LookalikeError):
    """A filter cannot be understood, names a column that no product has, or cannot match what a column holds.

    Remedy: correct the marked place; the message names the columns that exist, or what the column holds.
    """


class UnknownProduct(LookalikeError):
    """The collection has no image of the product.

    Remedy: check the id; `lookalike export FILE.csv` writes all that there are.
    """


class EncoderMismatch(LookalikeError):
    """The collection has the vectors of another encoder, which cannot be compared with this one's.

    Remedy: leave the encoder out, to use the collection's own; or move the collection with `lookalike reindex`.
    """


class EncoderUnavailable(LookalikeError):
    """The weights or the device of an encoder cannot be loaded, or there is no encoder of that name.

    Remedy: get the weights in one of the ways that the message names, or choose another encoder or device.
    """


class LimitExceeded(LookalikeError):
    """A limit, such as --max-removals, was exceeded. Nothing was done beyond it.

    Remedy: look into the reason first: a limit guards against half a catalogue. Then raise the limit, if you mean
    it.
    """


class AlreadyRunning(LookalikeError):
    """Another run is writing the same rows.

    Remedy: wait for the process that the message names, or stop it: what it has stored stays.
    """


class ProcessFailed(LookalikeError):
    """A process of the local stack does not keep running. The message ends with its last output.

    Remedy: run `lookalike doctor`, mend what the output names, and start the stack again.
    """


class StoreUnavailable(LookalikeError):
    """Milvus cannot be reached, or refused a call.

    Remedy: read what Milvus said in the message. What was stored stays; run the same command again.
    """


class StoreUnreachable(StoreUnavailable):
    """Milvus cannot be reached, so no call would succeed.

    Remedy: start Milvus, or correct its address and token. For Milvus Lite, wait for the process that has it open.
    """


class ResponseTooLarge(StoreUnavailable):
    """A response has more bytes than Milvus sends.

    Remedy: request fewer rows or columns at once.
    """


class DiskFull(StoreUnavailable):
    """The disk has too little room for Milvus Lite to write safely. Every acknowledged row is stored.

    Remedy: free some space and run the same command again.
    """

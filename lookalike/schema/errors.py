"""Every error that lookalike raises on purpose.

LookalikeError
├── BadSettings          a setting that cannot work
├── BadSource            the folder or manifest cannot be read as a catalogue
├── BadImage             one image: reported, the run goes on
├── BadRow               a row that Milvus would refuse, or take and spoil
├── BadQuery             a question that cannot be answered
├── BadFilter            a filter that cannot be understood
├── UnknownProduct       no such product in the collection
├── EncoderMismatch      the collection was filled by another encoder
├── EncoderUnavailable   weights or device not to be had
├── LimitExceeded             a limit was passed; nothing was done beyond it
├── Busy                 another run is writing the same rows
├── ProcessFailed        a process of the local stack does not stay up
└── StoreUnavailable     Milvus not reached, or it refused
    ├── StoreUnreachable        Milvus not reached, by anyone
    ├── ResponseTooLarge          more than Milvus sends in one answer
    └── DiskFull         no room left for Milvus Lite to write

A message says what failed, with which value, and what to do next.
"""


class LookalikeError(Exception):
    """The root: catch this to catch everything that lookalike raises on purpose."""


class BadSettings(LookalikeError):
    """A setting that cannot work."""


class BadSource(LookalikeError):
    """The source cannot be read as a catalogue at all."""


class BadImage(LookalikeError):
    """One image that cannot be used; a line in the report, never the end of a run."""


class BadRow(LookalikeError):
    """A row that Milvus would refuse, or take and spoil: nothing of its batch was sent."""


class BadQuery(LookalikeError):
    """A question that cannot be answered as asked."""


class BadFilter(LookalikeError):
    """A filter that cannot be understood."""


class UnknownProduct(LookalikeError):
    """No image of this product is in the collection."""


class EncoderMismatch(LookalikeError):
    """The collection holds vectors of another encoder; comparing them would mean nothing."""


class EncoderUnavailable(LookalikeError):
    """The weights or the device of an encoder cannot be had; the message names the ways to get them."""


class LimitExceeded(LookalikeError):
    """A limit, such as --max-removals, held a run back."""


class AlreadyRunning(LookalikeError):
    """Another run is writing the same rows."""


class ProcessFailed(LookalikeError):
    """A process of the local stack does not stay up; the message ends with what it said last."""


class StoreUnavailable(LookalikeError):
    """Milvus was not reached, or refused."""


class StoreUnreachable(StoreUnavailable):
    """Milvus was not reached; whatever is asked, nothing would be answered."""


class ResponseTooLarge(StoreUnavailable):
    """An answer would have more bytes than Milvus sends in one; ask for fewer rows or columns at once."""


class DiskFull(StoreUnavailable):
    """Milvus Lite has no room left to write safely."""

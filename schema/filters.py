"""Filters over metadata: parsed from words, compiled to a Milvus expression with every value escaped.

A filter is a tuple of conditions that all have to hold. What they mean, on Milvus Lite and on a server alike:

=, !=, <, <=, >, >=   compare with one value; text with text (by code point), numbers with numbers
in, not in            equal to one of several values, or to none of them
contains              a list that has the value as an element
exists                the product has the column

A product without the column matches none of them: `price != 5` means "has a price, and it is not 5".
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from schema.errors import BadFilter

Scalar = str | int | float | bool

OPERATORS = ("not in", "in", "contains", "exists", "!=", "<=", ">=", "=", "<", ">")
COLUMNS = ("product_id", "image_id", "image", "source")
"""What can be asked beside metadata: columns of the collection itself, all of them text."""

MAX_CONDITIONS = 100
MAX_VALUES = 1_000
MAX_CHARACTERS = 60_000

# No blank on either side: a pattern that may give blanks to its neighbours tries every way to share them out.
_COLUMN = r'(?P<column>"(?:[^"\\]|\\.)*"|\S(?:.*?\S)??)'
# The first operator counts, so that a value may hold any text: `title = not in stock`.
_CONDITION = re.compile(
    _COLUMN + r"(?:\s*(?P<symbol>!=|<=|>=|==|=|<|>)\s*|\s+(?P<word>not\s+in|in|contains)\s+)(?P<value>.*)", re.DOTALL
)
_EXISTS = re.compile(_COLUMN + r"\s+exists", re.DOTALL)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one column; `values` are alternatives, any of which may hold.

    A word typed on the command line may mean a number or a text: `size = 42` is (42, "42").
    """

    column: str
    operator: str
    values: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise BadFilter(f"{self.operator!r} is no filter operator; take one of {', '.join(OPERATORS)}")
        if not self.column:
            raise BadFilter("a filter needs the name of a column before its operator")
        if bool(self.values) == (self.operator == "exists"):
            raise BadFilter(f"{self.column} {self.operator}: the wrong number of values ({len(self.values)})")
        if len(self.values) > MAX_VALUES:
            raise BadFilter(f"{self.column} {self.operator}: {len(self.values)} values are too many ({MAX_VALUES})")
        for value in (self.column, *self.values):
            if not _can_be_sent(value):
                raise BadFilter(f"{self.column!r} {self.operator} {value!r}: Milvus has no place for such a value")
        if sum(len(str(value)) for value in self.values) > MAX_CHARACTERS:
            raise BadFilter(f"{self.column} {self.operator}: the values are longer than {MAX_CHARACTERS} characters")


Filter = tuple[Condition, ...]


def parse(texts: Iterable[str]) -> Filter:
    """Read conditions such as `price < 50`, `brand in Acme, "Fine, Ltd"` or `colour exists`.

    A value in double quotes is always text. A bare number or true/false matches the text of the same spelling
    too. Raises BadFilter with the text that was not understood.
    """
    conditions = tuple(_condition(_not_too_long(text).strip()) for text in texts)
    if len(conditions) > MAX_CONDITIONS:
        raise BadFilter(f"{len(conditions)} conditions are too many; {MAX_CONDITIONS} is the limit")
    return conditions


def compile_filter(conditions: Filter) -> str:
    """Write a filter as a Milvus boolean expression; the empty filter is the empty string."""
    return " and ".join(_expression(condition) for condition in conditions)


def any_of(column: str, values: Iterable[str]) -> str:
    """Write `column in [values]` for a column of the collection, escaped."""
    return f"{column} in [{', '.join(map(literal, values))}]"


def literal(value: Scalar) -> str:
    """Write a value as Milvus reads it, so that nothing in it can end the literal.

    Milvus Lite knows no escapes by number and a server no surrogate pairs: what need not be escaped stays as it is.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPES) + '"'
    return repr(value)


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def _not_too_long(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise BadFilter(f"a filter of {len(text)} characters is too long; {MAX_CHARACTERS} is the limit")
    return text


def _condition(text: str) -> Condition:
    if match := _CONDITION.fullmatch(text):
        operator = "=" if match["symbol"] == "==" else match["symbol"] or " ".join(match["word"].split())
        value = match["value"].strip()
        words = _split(value) if operator in ("in", "not in") else [value]
        return Condition(_unquoted(match["column"]), operator, tuple(v for word in words for v in _readings(word)))
    if match := _EXISTS.fullmatch(text):
        return Condition(_unquoted(match["column"]), "exists")
    raise BadFilter(
        f"filter {text!r} was not understood; write COLUMN OPERATOR VALUE, for example "
        "'category = shoes', 'price < 50', 'brand in Acme, Fine' or 'colour exists'"
    )


def _split(text: str) -> list[str]:
    """Cut `a, "b, c", d` at the commas outside quotes; brackets or parentheses around the list are optional."""
    if (text[:1], text[-1:]) in (("[", "]"), ("(", ")")):
        text = text[1:-1]
    return [word.strip() for word in re.findall(r'\s*(?:"(?:[^"\\]|\\.)*"|[^,])+', text) if word.strip()]


def _readings(word: str) -> tuple[Scalar, ...]:
    """All that a word may mean: a quoted one is text, a bare number or boolean is itself or its spelling."""
    if _is_quoted(word):
        return (_unquoted(word),)
    if word in ("true", "false"):
        return (word == "true", word)
    if _NUMBER.fullmatch(word):
        return (_number(word), word)
    return (word,)


def _can_be_sent(value: Scalar) -> bool:
    """UTF-8 has no lone surrogates, JSON neither infinity nor NaN, Milvus no integers past 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] == '"'


def _unquoted(word: str) -> str:
    if not _is_quoted(word):
        return word.strip()
    try:
        return str(json.loads(word, strict=False))
    except ValueError as error:
        raise BadFilter(f'{word} is not a quoted text: {error}; write a quote in it as \\"') from None


def _number(word: str) -> int | float:
    """Past 64 bits, an integer is the float that Milvus would make of it."""
    if re.search(r"[.eE]", word) or len(word) > 20:
        return float(word)
    number = int(word)
    return number if -(2**63) <= number < 2**63 else float(number)


def _expression(condition: Condition) -> str:
    column = condition.column if condition.column in COLUMNS else f"metadata[{literal(condition.column)}]"
    # The columns of the collection are text, always there, and know neither numbers nor `exists`.
    values = _texts(condition.values) if column in COLUMNS else condition.values
    if condition.operator == "exists":
        return f"(exists {column})" if column not in COLUMNS else f'{column} != ""'
    if condition.operator in ("=", "in"):
        return _any(f"{column} == {literal(value)}" for value in values)
    if condition.operator in ("!=", "not in"):
        return _differs(column, values)
    if condition.operator == "contains":
        if column in COLUMNS:
            raise BadFilter(f"{column} contains …: {column} is one text, not a list")
        # One element a list: Milvus Lite takes no negative number in json_contains, a server no mixed list.
        return _any(f"json_contains_any({column}, [{literal(_as_element(value))}])" for value in values)
    return _any(f"{column} {condition.operator} {literal(value)}" for value in _ordered(condition, values))


def _differs(column: str, values: Iterable[Scalar]) -> str:
    differs = " and ".join(f"{column} != {literal(value)}" for value in values)
    # Without the key, a server keeps the row and Milvus Lite drops it: say what is meant. The inner parentheses are
    # for 2.3, where `exists` takes the whole rest of an expression.
    return f"({differs})" if column in COLUMNS else f"((exists {column}) and {differs})"


def _ordered(condition: Condition, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Leave out readings without an order, and the spelling of a number: `price < 50` is about numbers."""
    if condition.column in COLUMNS:
        return values
    ordered = tuple(value for value in values if not isinstance(value, bool))
    numbers = tuple(value for value in ordered if not isinstance(value, str))
    if len(ordered) < len(values) and not numbers:
        raise BadFilter(f"{condition.column} {condition.operator} {values[0]}: true and false have no order")
    return numbers or ordered


def _as_element(value: Scalar) -> Scalar:
    """A server finds 1.0 in [1] but not 1 in [1.0], so ask for the float where it is exact."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def _any(expressions: Iterable[str]) -> str:
    return "(" + " or ".join(expressions) + ")"


def _texts(values: tuple[Scalar, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value if isinstance(value, str) else literal(value) for value in values))

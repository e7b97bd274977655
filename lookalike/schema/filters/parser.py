"""Filters as they are typed: `price < 50`, `brand in Acme, "Fine, Ltd"`, `colour exists`."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import MAX_CHARACTERS, Clause, Condition, Filter, Scalar, check_filter_size
from lookalike.schema.filters.json import parse_json_filter

# No blank on either side: a pattern that may give blanks to its neighbours tries every way to share them out.
_COLUMN = r'(?P<column>"(?:[^"\\]|\\.)*"|\S(?:.*?\S)??)'
# The first operator counts, so that a value may hold any text: `title = not in stock`.
_CONDITION = re.compile(
    _COLUMN + r"(?:\s*(?P<symbol>!=|<=|>=|==|=|<|>)\s*|\s+(?P<word>not\s+in|in|contains)\s+)(?P<value>.*)", re.DOTALL
)
_EXISTS = re.compile(_COLUMN + r"\s+exists", re.DOTALL)
_SHOWN = 200
"""Characters of a filter that a message repeats."""

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def parse_filter(texts: Iterable[str]) -> Filter:
    """Read conditions such as `price < 50`, or filters in JSON such as `{"or": [{"brand": "A"}, {"brand": "B"}]}`.

    A value in double quotes is always text. A bare number or true/false matches the text of the same spelling
    too. Raises BadFilter with the text that was not understood.
    """
    return check_filter_size(tuple(clause for text in texts for clause in _clauses(_not_too_long(text).strip())))


def _clauses(text: str) -> Filter:
    if text.startswith("{"):
        with suppress(ValueError, RecursionError):
            return parse_json_filter(json.loads(text))
    return (_condition(text),)


def _not_too_long(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise BadFilter(f"a filter of {len(text)} characters is too long; {MAX_CHARACTERS} is the limit")
    return text


def _condition(text: str) -> Clause:
    if match := _CONDITION.fullmatch(text):
        operator = "=" if match["symbol"] == "==" else match["symbol"] or " ".join(match["word"].split())
        value = match["value"].strip()
        words = _split(value) if operator in ("in", "not in") else [value]
        return Condition(_unquoted(match["column"]), operator, tuple(v for word in words for v in _readings(word)))
    if match := _EXISTS.fullmatch(text):
        return Condition(_unquoted(match["column"]), "exists")
    raise BadFilter(
        f"filter {text[:_SHOWN]!r} was not understood; write COLUMN OPERATOR VALUE, for example "
        "'category = shoes', 'price < 50', 'brand in Acme, Fine' or 'colour exists'"
    )


def _split(text: str) -> list[str]:
    """Cut `a, "b, c", d` at the commas outside quotes; brackets or parentheses around the list are optional."""
    if (text[:1], text[-1:]) in (("[", "]"), ("(", ")")):
        text = text[1:-1]
    cuts = [place for place in _unquoted_places(text) if text[place] == ","]
    words = [text[start + 1 : end].strip() for start, end in pairwise((-1, *cuts, len(text)))]
    return [word for word in words if word]


def _unquoted_places(text: str) -> Iterator[int]:
    """Where text stands outside quotes; a quote without its closing one is text as any other.

    By hand: a pattern that tries every opening quote to the end takes a minute for thousands of them.
    """
    place = 0
    while place < len(text):
        end = _closing(text, place) if text[place] == '"' else None
        if text[place] == '"' and end is None:
            yield from range(place, len(text))
            return
        if end is None:
            yield place
        place = (end or place) + 1


def _closing(text: str, opening: int) -> int | None:
    place = opening + 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place if place < len(text) else None


def _readings(word: str) -> tuple[Scalar, ...]:
    """All that a word may mean: a quoted one is text, a bare number or boolean is itself or its spelling."""
    if _is_quoted(word):
        return (_unquoted(word),)
    if word in ("true", "false"):
        return (word == "true", word)
    if _NUMBER.fullmatch(word):
        return (_number(word), word)
    return (word,)


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] == '"'


def _unquoted(word: str) -> str:
    if not _is_quoted(word):
        return word.strip()
    try:
        return str(json.loads(word, strict=False))
    except ValueError as error:
        raise BadFilter(f'{word[:_SHOWN]} is not a quoted text: {error}; write a quote in it as \\"') from None


def _number(word: str) -> int | float:
    """Past 64 bits, an integer is the float that Milvus would make of it."""
    if re.search(r"[.eE]", word) or len(word) > 20:
        return float(word)
    number = int(word)
    return number if -(2**63) < number < 2**63 else float(number)

"""Filters as text: `price < 50`, `brand in Acme, "Fine, Ltd"`, `colour exists`."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import MAX_CHARACTERS, Clause, Condition, Filter, Scalar, check_filter_size
from lookalike.schema.filters.json import parse_json_filter

# Starts and ends with a non-blank: if two parts of the pattern could match the same blanks, matching would be slow.
_COLUMN = r'(?P<column>"(?:[^"\\]|\\.)*"|\S(?:.*?\S)??)'
# The first operator is the one that counts, so that a value may be any text: `title = not in stock`.
_CONDITION = re.compile(
    _COLUMN + r"(?:\s*(?P<symbol>!=|<=|>=|==|=|<|>)\s*|\s+(?P<word>not\s+in|in|contains)\s+)(?P<value>.*)", re.DOTALL
)
_EXISTS = re.compile(_COLUMN + r"\s+exists", re.DOTALL)
_MAX_SHOWN = 200
"""How many characters of a filter an error message repeats."""

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def parse_filter(texts: Iterable[str]) -> Filter:
    """Read conditions such as `price < 50`, or filters in JSON such as `{"or": [{"brand": "A"}, {"brand": "B"}]}`.

    A value in double quotes is always text. A bare number, true or false also matches the text of the same spelling.
    Raises BadFilter with the text that is invalid.
    """
    return check_filter_size(tuple(clause for text in texts for clause in _parse_clauses(_check_length(text).strip())))


def _parse_clauses(text: str) -> Filter:
    if text.startswith("{"):
        with suppress(ValueError, RecursionError):
            return parse_json_filter(json.loads(text))
    return (_parse_condition(text),)


def _check_length(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise BadFilter(f"a filter of {len(text)} characters is too long; {MAX_CHARACTERS} is the limit")
    return text


def _parse_condition(text: str) -> Clause:
    if match := _CONDITION.fullmatch(text):
        operator = "=" if match["symbol"] == "==" else match["symbol"] or " ".join(match["word"].split())
        value = match["value"].strip()
        words = _split_list(value) if operator in ("in", "not in") else [value]
        return Condition(_unquote(match["column"]), operator, tuple(v for word in words for v in _parse_value(word)))
    if match := _EXISTS.fullmatch(text):
        return Condition(_unquote(match["column"]), "exists")
    raise BadFilter(
        f"filter {text[:_MAX_SHOWN]!r} was not understood; write COLUMN OPERATOR VALUE, for example "
        "'category = shoes', 'price < 50', 'brand in Acme, Fine' or 'colour exists'"
    )


def _split_list(text: str) -> list[str]:
    """Split `a, "b, c", d` at the commas outside quotes; brackets or parentheses around the list are optional."""
    if (text[:1], text[-1:]) in (("[", "]"), ("(", ")")):
        text = text[1:-1]
    commas = [index for index in _unquoted_indices(text) if text[index] == ","]
    words = [text[start + 1 : end].strip() for start, end in pairwise((-1, *commas, len(text)))]
    return [word for word in words if word]


def _unquoted_indices(text: str) -> Iterator[int]:
    """Yield the indices of the characters outside quotes. A quote that is not closed is an ordinary character.

    Not a regular expression: one that looks for the end of every opening quote takes a minute for thousands of quotes.
    """
    index = 0
    while index < len(text):
        end = _find_closing_quote(text, index) if text[index] == '"' else None
        if text[index] == '"' and end is None:
            yield from range(index, len(text))
            return
        if end is None:
            yield index
        index = (end or index) + 1


def _find_closing_quote(text: str, opening: int) -> int | None:
    index = opening + 1
    while index < len(text) and text[index] != '"':
        index += 2 if text[index] == "\\" else 1
    return index if index < len(text) else None


def _parse_value(word: str) -> tuple[Scalar, ...]:
    """Return the values that a word may be: only text if quoted; a number, true or false is itself or its text."""
    if _is_quoted(word):
        return (_unquote(word),)
    if word in ("true", "false"):
        return (word == "true", word)
    if _NUMBER.fullmatch(word):
        return (_parse_number(word), word)
    return (word,)


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] == '"'


def _unquote(word: str) -> str:
    if not _is_quoted(word):
        return word.strip()
    try:
        return str(json.loads(word, strict=False))
    except ValueError as error:
        raise BadFilter(
            f'{word[:_MAX_SHOWN]} is not a valid quoted text: {error}; write a quote in it as \\"'
        ) from None


def _parse_number(word: str) -> int | float:
    """Read a number. An integer of more than 64 bits becomes a float, as in Milvus."""
    if re.search(r"[.eE]", word) or len(word) > 20:
        return float(word)
    number = int(word)
    return number if -(2**63) < number < 2**63 else float(number)

"""The words of a filter that is text: quotes, lists, numbers."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Scalar

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_MAX_SHOWN = 200
"""How many characters of a word an error message repeats."""


def split_list(text: str) -> list[str]:
    """Split `a, "b, c", d` at the commas outside quotes; brackets or parentheses around the list are optional."""
    if (text[:1], text[-1:]) in (("[", "]"), ("(", ")")):
        text = text[1:-1]
    commas = [index for index in unquoted_indices(text) if text[index] == ","]
    words = [text[start + 1 : end].strip() for start, end in pairwise((-1, *commas, len(text)))]
    return [word for word in words if word]


def unquoted_indices(text: str) -> Iterator[int]:
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


def parse_value(word: str) -> tuple[Scalar, ...]:
    """Return the values that a word may be: only text if quoted; a number, true or false is itself or its text."""
    if _is_quoted(word):
        return (unquote(word),)
    if word in ("true", "false"):
        return (word == "true", word)
    if _NUMBER.fullmatch(word):
        return (_parse_number(word), word)
    return (word,)


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] == '"'


def unquote(word: str) -> str:
    """Return the text in double quotes, or a word without quotes as it is. Raises BadFilter."""
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

"""Filters as people type them: `category = mug and (price < 50 or sale = true) and not brand in Acme, "Fine, Ltd"`.

filter     one or more conditions, joined by `and`, `or`, `not` and parentheses
condition  COLUMN OPERATOR VALUE, or COLUMN exists
operator   = != < <= > >= in, not in, contains, startswith, like
value      words up to the next `and`, `or` or closing parenthesis; a list after `in` has commas
"…"        text or a column name that holds one of these words or characters
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    AnyOf,
    Condition,
    Filter,
    Not,
    Scalar,
    check_filter_size,
)
from lookalike.schema.filters.json import parse_json_filter
from lookalike.schema.filters.words import parse_value, split_list, unquote, unquoted_indices

# Starts and ends with a non-blank: if two parts of the pattern could match the same blanks, matching would be slow.
_COLUMN = r'(?P<column>"(?:[^"\\]|\\.)*"|\S(?:.*?\S)??)'
# The first operator is the one that counts, so that a value may be any text: `title = not in stock`.
_CONDITION = re.compile(
    _COLUMN
    + r"(?:\s*(?P<symbol>!=|<=|>=|==|=|<|>)\s*|\s+(?P<word>not\s+in|in|contains|startswith|like)\s+)(?P<value>.*)",
    re.DOTALL,
)
_EXISTS = re.compile(_COLUMN + r"\s+exists", re.DOTALL)
_WORD = re.compile(r"(?i:and|or|not)(?=[\s(\"]|$)")
_SECOND_OPERATOR = re.compile(r"(?<=\s)(!=|<=|>=|==|=|<|>|&&|\|\|)(?=\s)")
_MAX_SHOWN = 60
"""How many characters before and after the marked place an error message repeats."""


def parse_filter(texts: Iterable[str]) -> Filter:
    """Read filters such as `price < 50 and not brand = Acme`, or JSON such as `{"price": {"lt": 50}}`; all must hold.

    A value in double quotes is always text. A bare number or true/false also matches the text of the same spelling.
    Raises BadFilter, which marks the place that is not understood.
    """
    return check_filter_size(tuple(clause for text in texts for clause in _parse_one(text)))


def _parse_one(text: str) -> Filter:
    if len(text) > MAX_CHARACTERS:
        raise BadFilter(f"a filter of {len(text)} characters is too long; {MAX_CHARACTERS} is the limit")
    if text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            return parse_json_filter(json.loads(text))
    return _Parser(text).parse()


class _Parser:
    """A recursive-descent parser of one filter. `_at` is the index of the next character to read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._is_unquoted = bytearray(len(text) + 1)
        for index in unquoted_indices(text):
            self._is_unquoted[index] = True

    def parse(self) -> Filter:
        parsed = self._read_alternatives(depth=0)
        if self._at < len(self._text):
            raise self._error(
                "there is no parenthesis to close" if self._text[self._at] == ")" else "write `and` or `or` here"
            )
        return parsed

    def _read_alternatives(self, depth: int) -> Filter:
        alternatives = [self._read_clauses(depth)]
        while self._skip_word("or"):
            alternatives.append(self._read_clauses(depth))
        return alternatives[0] if len(alternatives) == 1 else (AnyOf(tuple(alternatives)),)

    def _read_clauses(self, depth: int) -> Filter:
        clauses = self._read_clause(depth)
        while self._skip_word("and"):
            clauses += self._read_clause(depth)
        return clauses

    def _read_clause(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise self._error(f"`not` and parentheses may be nested {MAX_DEPTH} deep, not more")
        if self._skip_word("not"):
            return (Not(self._read_clause(depth + 1)),)
        self._skip_blanks()
        if self._text[self._at : self._at + 1] == "(":
            self._at += 1
            group = self._read_alternatives(depth + 1)
            if self._text[self._at : self._at + 1] != ")":
                raise self._error("a parenthesis is not closed")
            self._at += 1
            self._skip_blanks()
            return group
        start = self._at
        self._at = self._end_of_condition(is_in_group=depth > 0)
        return (self._parse_condition(start, self._text[start : self._at].rstrip()),)

    def _end_of_condition(self, is_in_group: bool) -> int:
        """Find where a condition ends: at `and`, `or`, the parenthesis that closes its group, or the end."""
        opened = 0
        for index in range(self._at, len(self._text)):
            if not self._is_unquoted[index]:
                continue
            character = self._text[index]
            if character == ")" and not opened and is_in_group:
                return index
            opened = max(0, opened + (character == "(") - (character == ")"))
            if not opened and self._word_at(index) in ("and", "or"):
                return index
        return len(self._text)

    def _parse_condition(self, start: int, text: str) -> Condition:
        if match := _CONDITION.fullmatch(text):
            operator = "=" if match["symbol"] == "==" else match["symbol"] or " ".join(match["word"].split())
            value = match["value"].strip()
            if operator in ("in", "not in"):
                words = split_list(value)
            else:
                words = [value]
                self._refuse_comma(start + match.start("value"), start + match.end("value"), match["column"], operator)
                self._refuse_unclear(start + match.start("value"), match["value"])
            return Condition(unquote(match["column"]), operator, _parse_values(operator, words))
        if match := _EXISTS.fullmatch(text):
            return Condition(unquote(match["column"]), "exists")
        self._at = start
        raise self._error(
            "write COLUMN OPERATOR VALUE, for example 'category = shoes', 'price < 50', 'brand in Acme, Fine' or "
            "'colour exists'" + ('; put text that holds "and" or "or" in double quotes' if start else "")
        )

    def _refuse_unclear(self, start: int, text: str) -> None:
        """Raise BadFilter for a value that is missing, whose quotes are no pair, or that looks like two conditions."""
        value, at = text.strip(), start + len(text) - len(text.lstrip())
        if not value:
            raise self._error('a value is missing here; for no text write ""', at)
        if value[0] == '"' and self._is_unquoted[at]:
            raise self._error("this quote is not closed", at)
        if len(value) > 1 and value[0] == value[-1] == "'":
            raise self._error(f"put text in double quotes: {json.dumps(value[1:-1], ensure_ascii=False)}", at)
        for match in _SECOND_OPERATOR.finditer(text):
            if self._is_unquoted[start + match.start(1)]:
                advice = "write `and` or `or` between two conditions, or put text with this in double quotes"
                raise self._error(advice, start + match.start(1))

    def _refuse_comma(self, start: int, end: int, column: str, operator: str) -> None:
        for index in range(start, end):
            if self._text[index] == "," and self._is_unquoted[index]:
                raise self._error(
                    "write `and` between two conditions, a decimal point in a number, or put text with a comma in "
                    f'double quotes: {column} {operator} "…"',
                    index,
                )

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _skip_word(self, word: str) -> bool:
        self._skip_blanks()
        if self._word_at(self._at) != word:
            return False
        self._at += len(word)
        return True

    def _word_at(self, index: int) -> str:
        """Return `and`, `or` or `not` where it begins at an index as a word of its own, else the empty string."""
        is_start = index == 0 or self._text[index - 1].isspace() or self._text[index - 1] in '()"'
        match = _WORD.match(self._text, index) if is_start and self._is_unquoted[index] else None
        return match[0].lower() if match else ""

    def _error(self, advice: str, at: int | None = None) -> BadFilter:
        """Mark the place `at`, by default the next character to read."""
        at = self._at if at is None else at
        before, after = self._text[:at], self._text[at:]
        shown = f"{'…' if len(before) > _MAX_SHOWN else ''}{before[-_MAX_SHOWN:]}▸{after[:_MAX_SHOWN]}"
        shown += "…" if len(after) > _MAX_SHOWN else ""
        return BadFilter(f"filter {shown!r} was not understood at character {at + 1} (▸): {advice}")


def _parse_values(operator: str, words: Iterable[str]) -> tuple[Scalar, ...]:
    if operator in ("startswith", "like"):
        return tuple(unquote(word) for word in words)
    return tuple(value for word in words for value in parse_value(word))

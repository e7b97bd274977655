"""Check the types of arguments; the errors name the type that was passed and those that are accepted."""

import os
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from lookalike.schema.errors import BadQuery


def describe_type(value: object) -> str:
    """Name the type of a value; of an array also its dtype and shape."""
    if isinstance(value, np.ndarray):
        return f"a numpy array of {value.dtype} and shape {value.shape}"
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def wrong_type(name: str, value: object, accepted: str) -> BadQuery:
    """Return the error for an argument of a type that is not accepted."""
    return BadQuery(f"{name} is {describe_type(value)}; it takes {accepted}")


def check_text(name: str, value: object) -> str:
    """Return a text. Raises BadQuery for anything else."""
    if not isinstance(value, str):
        raise wrong_type(name, value, "str")
    return value


def check_integer(name: str, value: object) -> int:
    """Return an int of Python or numpy as an int. Raises BadQuery for anything else."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise wrong_type(name, value, "int")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return True or False. Raises BadQuery for anything else: the text "no" would count as yes."""
    if not isinstance(value, bool | np.bool_):
        raise wrong_type(name, value, "bool")
    return bool(value)


def check_number(name: str, value: object) -> float:
    """Return a number of Python or numpy as a float. Raises BadQuery for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise wrong_type(name, value, "float or int")
    return float(value)


def check_texts(name: str, value: object) -> tuple[str, ...]:
    """Return several texts as a tuple, one text as a tuple of one. Raises BadQuery for anything else."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise wrong_type(name, value, "str or a sequence of str")
    return tuple(value)


def check_path(name: str, value: object) -> str:
    """Return a path as text. Raises BadQuery for anything else."""
    if not isinstance(value, str | os.PathLike):
        raise wrong_type(name, value, "str or Path")
    return os.fsdecode(value)

"""Reading the options that a recipe gives to a pass."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Final

from cmpk.errors import RecipeError

__all__ = ["check_known", "choice", "flag", "int_list", "integer", "number", "rows", "share"]

_MAX: Final = sys.float_info.max


def check_known(pass_id: str, options: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Refuse options that a pass does not have.

    Raises
    ------
    RecipeError
        If there is one.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise RecipeError(f"pass {pass_id!r} has no option {unknown[0]!r}; it has {', '.join(known)}")


def integer(pass_id: str, options: Mapping[str, object], name: str, default: int, low: int, high: int) -> int:
    """An integer option within ``low .. high``.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; give an integer within {low} to {high}")
    return value


def int_list(pass_id: str, options: Mapping[str, object], name: str, default: list[int]) -> list[int]:
    """A list of non-negative integers, not empty.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, default)
    if not isinstance(value, list) or not value or not all(type(item) is int and item >= 0 for item in value):
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; give a list of non-negative integers")
    return value


def share(pass_id: str, options: Mapping[str, object], name: str, default: float) -> float:
    """A number within 0 .. 1.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; give a number within 0 to 1")
    return float(value)


def number(
    pass_id: str, options: Mapping[str, object], name: str, default: float, low: float, high: float = math.inf
) -> float:
    """A finite number within ``low .. high``.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, default)
    # An integer may be too large for a float, which comparing it does not mind.
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= min(high, _MAX):
        limits = f"of {low} or more" if high == math.inf else f"within {low} to {high}"
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; give a number {limits}")
    return float(value)


def flag(pass_id: str, options: Mapping[str, object], name: str, default: bool) -> bool:
    """A truth value.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; give true or false")
    return value


def choice(pass_id: str, options: Mapping[str, object], name: str, values: tuple[str, ...]) -> str:
    """One of some words, the first by default.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, values[0])
    if not isinstance(value, str) or value not in values:
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; choose one of {', '.join(values)}")
    return value


def rows(pass_id: str, options: Mapping[str, object], name: str) -> list[int]:
    """Numbers of rows, none by default.

    Raises
    ------
    RecipeError
        If it is something else.
    """
    value = options.get(name, [])
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise RecipeError(f"pass {pass_id!r}: {name} is {value!r}; give a list of rows, counted from 0")
    return sorted(set(value))

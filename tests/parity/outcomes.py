"""What an operation did, to be compared between backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cmpk.errors import CorruptStreamError

__all__ = ["outcome", "result"]


def result(value: Any) -> Any:
    """Arrays as their type, shape and bytes; tuples of them likewise."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return tuple(result(item) for item in value) if isinstance(value, tuple) else value


def outcome(operation: Callable[[], Any]) -> Any:
    """The result of an operation, or the kind of its error. Any other error is a failure of the test."""
    try:
        return result(operation())
    except (CorruptStreamError, ValueError) as error:
        return CorruptStreamError if isinstance(error, CorruptStreamError) else ValueError

"""Functions that are named on the command line, as ``module:function``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from cmpk.errors import SourceError

__all__ = ["function_of"]


def function_of(text: str) -> Callable[..., Any]:
    """Import a function; modules of the current folder come first.

    Raises
    ------
    SourceError
        If there is none of that name.
    """
    module_name, _, attribute = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SourceError(f"{text!r} names no function as 'module:function': {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise SourceError(f"{text!r} is not a function")
    return found  # type: ignore[no-any-return]  # what it gives is for the caller to check

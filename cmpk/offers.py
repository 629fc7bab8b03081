"""What plugins may offer: the kinds, the type of each, and what keeps an offer from being taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cmpk.codecs.base import Codec
from cmpk.encodings.base import Encoding
from cmpk.kernels.interface import FUSED_CODECS, KernelBackend

__all__ = ["KINDS", "flaw_of", "items_of", "singular"]

KINDS: Final = ("codecs", "encodings", "passes", "importers", "kernels", "commands")
"""Each is what the hook ``cmpk_<kind>`` gives."""

_ID: Final = re.compile(r"[a-z0-9_-]{1,64}")


def singular(kind: str) -> str:
    """One of a kind, for messages."""
    return {"passes": "pass", "kernels": "kernel backend"}.get(kind, kind.removesuffix("s"))


def items_of(kind: str, offered: Any) -> list[tuple[Any, Any]]:
    """What a hook gave, each with its id; None for one without."""
    if kind == "kernels":
        if not isinstance(offered, Mapping):
            raise TypeError(f"it gave {offered!r}, not backends by name")
        return list(offered.items())
    attribute = "name" if kind == "commands" else "id"
    return [(getattr(item, attribute, None), item) for item in offered]


def flaw_of(kind: str, item_id: object, item: object) -> str:
    """What keeps an item from being registered.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    item_id : object
        Its id, or name.
    item : object

    Returns
    -------
    str
        Empty if nothing does.
    """
    if kind == "kernels":
        lacking = [name for name in _kernel_operations() if not callable(getattr(item, name, None))]
        if lacking:
            return f"it lacks the operations {', '.join(lacking)}"
    else:
        wanted = _type_of(kind)
        if not isinstance(item, wanted):
            return f"it is not an instance of {wanted.__module__}.{wanted.__qualname__}"
    if not isinstance(item_id, str) or not _ID.fullmatch(item_id):
        return f"{item_id!r} is not an id: 1 to 64 characters of a-z, 0-9, _ and -"
    if isinstance(item, Encoding) and item_id == "plain":
        return "'plain' is what a leaf is (spec/encodings/plain.md)"
    if isinstance(item, Codec):
        expansion = getattr(item, "max_expansion", None)
        if type(expansion) is not int or expansion < 1:
            return f"its max_expansion is {expansion!r}, not a positive integer"
        if item.fused and item_id not in FUSED_CODECS:
            return f"only {', '.join(FUSED_CODECS)} can be fused"
    return ""


def _type_of(kind: str) -> type:
    """What the items of a kind are; imported here, so that loading imports no pack-time code."""
    if kind == "codecs":
        return Codec
    if kind == "encodings":
        return Encoding
    if kind == "passes":
        from cmpk.passes.base import Pass

        return Pass
    if kind == "importers":
        from cmpk.importers.base import Importer

        return Importer
    import click

    return click.Command


def _kernel_operations() -> list[str]:
    return [
        name for name, value in vars(KernelBackend).items() if not name.startswith("_") and callable(value)
    ]

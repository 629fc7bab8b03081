"""One operation of two backends, held against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from cmpk.errors import CorruptStreamError
from cmpk.kernels import reference
from cmpk.kernels.interface import KernelBackend
from cmpk.testing.limits import fail, outcome_of

__all__ = ["THREADS", "same", "same_outcome"]

THREADS: Final = st.sampled_from([1, 3])


def same(backend: KernelBackend, what: str, call: Callable[[Any], Any]) -> Any:
    """The result of an operation; of both backends, bit for bit."""
    wanted, found = call(reference), call(backend)
    pairs = zip(wanted, found, strict=True) if isinstance(wanted, tuple) else [(wanted, found)]
    for want, have in pairs:
        if (want.dtype, want.shape, want.tobytes()) != (have.dtype, have.shape, have.tobytes()):
            fail(f"{what} gives {have!r}, reference gives {want!r}")
    return wanted


def same_outcome(backend: KernelBackend, call: Callable[[Any], bytes], nbytes: int, what: str) -> None:
    """Check that both backends decode to the same bytes, or both find the input corrupt."""
    wanted = outcome_of(lambda: call(reference), nbytes, f"reference, {what}")
    found = outcome_of(lambda: call(backend), nbytes, what)
    if isinstance(wanted, CorruptStreamError) != isinstance(found, CorruptStreamError):
        fail(f"{what}: reference gives {wanted!r}, this backend {found!r}")
    if isinstance(wanted, bytes) and wanted != found:
        fail(f"{what}: decodes to other bytes than with reference")

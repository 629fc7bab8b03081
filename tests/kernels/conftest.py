"""Every backend is held to the same sentences."""

from __future__ import annotations

import pytest

from cmpk.kernels.interface import KernelBackend


@pytest.fixture(params=["reference", "_native"], scope="session")
def backend(request: pytest.FixtureRequest) -> KernelBackend:
    """A module of kernels; skipped, and seen to be, where the native ones are not built."""
    name: str = request.param
    backend: KernelBackend = pytest.importorskip(
        f"cmpk.kernels.{name}", reason="the native kernels are not built", exc_type=ImportError
    )
    return backend

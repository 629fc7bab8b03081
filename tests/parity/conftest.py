"""The native backend beside the one that says what is meant."""

from __future__ import annotations

import importlib

import pytest

from cmpk.kernels.interface import KernelBackend


@pytest.fixture(scope="session")
def reference() -> KernelBackend:
    module: KernelBackend = importlib.import_module("cmpk.kernels.reference")
    return module


@pytest.fixture(scope="session")
def native() -> KernelBackend:
    """Skipped, and seen to be, where the native kernels are not built."""
    module: KernelBackend = pytest.importorskip(
        "cmpk.kernels._native", reason="the native kernels are not built", exc_type=ImportError
    )
    return module

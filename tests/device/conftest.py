"""The device that kernels are tested on: a real one where there is one, else Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Read when the kernels' module is imported, which the tests therefore leave to their fixtures.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Skipped, and seen to be, where Triton is not installed."""
    pytest.importorskip("triton", reason="Triton is not installed: no kernels for devices are tested")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With a real device, all tests of this folder are tests of it."""
    for item in items:
        if "tests/device/" in item.path.as_posix():
            # The interpreter computes with NumPy, which warns of infinities that a device just gives.
            item.add_marker(pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning"))
            if torch.cuda.is_available():
                item.add_marker(pytest.mark.gpu)

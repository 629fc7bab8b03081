"""What the tests of the specification share: its folder and its own decoder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cmpk import kernels


@pytest.fixture(scope="session")
def spec_folder() -> Path:
    return Path(__file__).resolve().parents[2] / "spec"


@pytest.fixture(scope="session")
def decode(spec_folder: Path) -> ModuleType:
    """spec/decode.py, which is no part of a package."""
    found = importlib.util.spec_from_file_location("spec_decode", spec_folder / "decode.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["spec_decode"] = module  # its dataclasses look themselves up there
    found.loader.exec_module(module)
    return module


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package's reader runs on each of its kernel backends."""
    name: str = request.param
    module = {"reference": "cmpk.kernels.reference", "native": "cmpk.kernels._native"}[name]
    try:
        implementation = importlib.import_module(module)
    except ImportError:
        pytest.skip(f"the {name} kernels are not built")
    monkeypatch.setattr(kernels, "active", lambda: implementation)
    return name

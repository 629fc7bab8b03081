"""Packages that cmpk finds through their entry points, and that are gone after the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmpk.registry import registry
from tests.plugins.packages import Install, RunPython, write_package

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed into."""
    folder = tmp_path / "site"
    folder.mkdir()
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    # Code that is installed anew within a second must not be taken for the old one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    registry.cache_clear()
    yield folder
    registry.cache_clear()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Installs a package, anew if need be: its name, its code, maybe its version and entry points."""

    def install_package(name: str, code: str, version: str = "1.0", entry_points: str = "") -> None:
        write_package(site, name, code, version, entry_points)
        sys.modules.pop(name.replace("-", "_"), None)
        registry.cache_clear()

    return install_package


@pytest.fixture
def run_python(site: Path) -> RunPython:
    """Runs code in a process of its own, with what is installed; gives what it prints as JSON."""

    def run(code: str, *arguments: object, **environment: str) -> Any:
        path = os.pathsep.join([str(site), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run

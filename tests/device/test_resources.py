"""Kernels compile ahead of time for each generation of devices, and take what the reviewed table says."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_compiled_kernels_take_what_the_reviewed_table_says() -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed: no kernels are compiled")
    recorded = (ROOT / "tools" / "gpu" / "resources.toml").read_text(encoding="utf-8")
    table = tomllib.loads(recorded)
    assert all(found["stack"] == 0 for by_target in table.values() for found in by_target.values())
    if f"{triton.__version__}" != "3.6.0":
        pytest.skip(f"the table is that of Triton 3.6.0, here is {triton.__version__}")
    # In a process of its own: this one may interpret kernels, which can't be compiled then.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tools.gpu.resources"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout == recorded

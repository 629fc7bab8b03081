"""What a process imports, watched from inside it; import-linter holds what can be read off the source."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cmpk
import cmpk.numpy

ROOT = Path(__file__).resolve().parent.parent
PRINT_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str) -> set[str]:
    """Names of all modules that a fresh process holds after some code."""
    command = [sys.executable, "-c", f"{code}\n{PRINT_MODULES}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def archive_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.cmpk"
    cmpk.numpy.save_file({"weight": np.linspace(-1, 1, 5000, dtype=np.float32).reshape(50, 100)}, path)
    return path


def test_importing_cmpk_imports_no_framework_and_no_array_library() -> None:
    assert modules_after("import cmpk") & {"torch", "triton", "numpy"} == set()


def test_opening_an_archive_imports_no_framework_and_no_pack_time_code(archive_path: Path) -> None:
    found = modules_after(f"import cmpk; cmpk.open({str(archive_path)!r}).close()")
    assert (
        found & {"torch", "triton", "cmpk.passes", "cmpk.importers", "cmpk.packing", "cmpk.recipe"} == set()
    )


def test_loading_into_torch_imports_no_pack_time_code(archive_path: Path) -> None:
    found = modules_after(f"import cmpk; cmpk.torch.load_file({str(archive_path)!r})")
    assert {"torch", "cmpk.codecs", "cmpk.encodings"} <= found
    assert found & {"cmpk.passes", "cmpk.importers", "cmpk.packing", "cmpk.recipe", "cmpk.nn"} == set()


def test_packing_and_unpacking_a_safetensors_file_imports_no_framework(tmp_path: Path) -> None:
    source = tmp_path / "small.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    source.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    packed, copy = tmp_path / "small.cmpk", tmp_path / "copy.safetensors"
    found = modules_after(f"import cmpk; cmpk.pack({str(source)!r}, {str(packed)!r})")
    found |= modules_after(f"import cmpk; cmpk.unpack({str(packed)!r}, {str(copy)!r})")
    assert found & {"torch", "triton"} == set()


def test_telling_the_version_imports_no_framework_and_showing_the_configuration_tells_of_devices() -> None:
    assert modules_after("from cmpk.config import config; config()") & {"torch", "triton"} == set()
    command = [sys.executable, "-c", "import cmpk; cmpk.show_config()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert re.search(r"^cuda +decoded on the (device by|CPU, then copied: )", done.stdout, re.MULTILINE)


def test_every_public_name_is_there_and_documented() -> None:
    for name in cmpk.__all__:
        assert name == "__version__" or getattr(cmpk, name).__doc__, name

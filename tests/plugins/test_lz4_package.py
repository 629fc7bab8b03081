"""plugins/cmpk-lz4 as users install it: a wheel of its own, found by cmpk without a word about it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.plugins.packages import RunPython

PLUGIN = Path(__file__).resolve().parents[2] / "plugins" / "cmpk-lz4"

USE = """
import json, sys
import numpy as np
import cmpk, cmpk.numpy, cmpk_lz4
from cmpk.registry import registry
mask = np.tile(np.arange(200, dtype=np.uint8), (300, 1))
cmpk.numpy.save_file({"mask": mask}, sys.argv[1], recipe=sys.argv[2])
with cmpk.open(sys.argv[1]) as archive:
    archive.verify(deep=True)
    codec = archive.entry("mask").data.codec
same = cmpk.numpy.load_file(sys.argv[1])["mask"].tobytes() == mask.tobytes()
mine = [problem.reason for problem in registry().problems if problem.origin.name == "cmpk-lz4"]
print(json.dumps([cmpk_lz4.__file__, registry().codecs["lz4"].plugin, codec, same, mine]))
"""

pytestmark = [pytest.mark.install, pytest.mark.slow]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    shutil.copytree(PLUGIN, tmp_path / "source", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    options = ["--no-build-isolation", "--no-deps", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(tmp_path / "source")]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert built.returncode == 0, built.stderr
    return next(tmp_path.glob("*.whl"))


def test_the_wheel_holds_the_package_its_types_and_its_entry_point(wheel: Path) -> None:
    assert wheel.name == "cmpk_lz4-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        info = "cmpk_lz4-0.1.0.dist-info"
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
        names = {name for name in archive.namelist() if not name.startswith(info)}
    assert names == {"cmpk_lz4/__init__.py", "cmpk_lz4/codec.py", "cmpk_lz4/py.typed"}
    assert entry_points.split() == ["[cmpk]", "lz4", "=", "cmpk_lz4"]
    assert {"Requires-Dist: cmpk", "Requires-Dist: lz4>=4.4"} <= set(metadata.splitlines())


def test_the_installed_wheel_packs_and_reads_a_file(
    wheel: Path, site: Path, run_python: RunPython, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    place, plugin, codec, same, problems = run_python(
        USE, tmp_path / "model.cmpk", PLUGIN / "lossless-lz4.toml"
    )
    assert Path(place).is_relative_to(site)
    assert (plugin, codec, same, problems) == ("cmpk-lz4 0.1.0", "lz4", True, [])

"""The package as users install it: with no compiler at hand, and from a source archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cmpk
import cmpk.numpy

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("CMakeLists.txt", "LICENSE", "README.md", "cmpk", "pyproject.toml", "tests")

pytestmark = [pytest.mark.install, pytest.mark.slow]

RunInstalled = Callable[..., "subprocess.CompletedProcess[str]"]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree without anything that was built in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build_wheel(source: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", out)
    return run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=source, **environment)


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built where every compiler fails."""
    out = tmp_path_factory.mktemp("wheel")
    built = build_wheel(source, out, CC="false", CXX="false")
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def run_installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> RunInstalled:
    """Runs Python in a folder of its own, with that wheel installed instead of this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    # -S, and the packages by PYTHONPATH: an editable install of this checkout would come first.
    path = os.pathsep.join([str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])

    def run_python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-S", *arguments, cwd=folder, PYTHONPATH=path, **environment)

    return run_python


def test_a_wheel_built_without_a_compiler_is_pure_python_and_complete(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("cmpk/")}
    suffixes = (".py", ".toml", ".typed")
    here = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "cmpk").rglob("*") if path.suffix in suffixes
    }
    assert packed == here | {"cmpk/py.typed"}


def test_a_wheel_built_without_a_compiler_says_that_it_has_the_reference_kernels(
    run_installed: RunInstalled,
) -> None:
    shown = run_installed("-c", "import cmpk; print(cmpk.__file__); cmpk.show_config()")
    assert shown.returncode == 0, shown.stderr
    place, *lines = shown.stdout.splitlines()
    assert not Path(place).is_relative_to(ROOT)
    kernels = next(line for line in lines if line.startswith("kernels"))
    assert "reference (NumPy)" in kernels
    assert "install a C++ compiler" in kernels


def test_the_command_line_says_so_too(run_installed: RunInstalled) -> None:
    shown = run_installed("-m", "cmpk.cli", "--version")
    assert shown.returncode == 0, shown.stderr
    version, kernels = shown.stdout.splitlines()
    assert version == f"cmpk {cmpk.__version__}"
    assert "reference (NumPy)" in kernels


def test_asking_for_native_kernels_that_are_not_there_is_a_clear_error(run_installed: RunInstalled) -> None:
    asked = run_installed("-c", "import cmpk.kernels; cmpk.kernels.active()", CMPK_KERNELS="native")
    assert asked.returncode == 1
    assert asked.stderr.splitlines()[-1].startswith(
        "cmpk.errors.CmpkError: the native kernels are not available"
    )


def test_the_installed_reference_kernels_write_and_read_the_same_file(
    run_installed: RunInstalled, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    tensors = {"weight": rng.normal(0, 0.02, (300, 70)).astype(np.float32), "step": np.array(3, np.int64)}
    cmpk.numpy.save_file(tensors, tmp_path / "here.cmpk")
    copied = run_installed(
        "-c",
        "import sys, cmpk; here, there = sys.argv[1:]\n"
        "cmpk.numpy.save_file(cmpk.numpy.load_file(here), there)",
        tmp_path / "here.cmpk",
        tmp_path / "there.cmpk",
    )
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "there.cmpk").read_bytes() == (tmp_path / "here.cmpk").read_bytes()


def test_a_compile_error_ends_the_build_where_native_kernels_are_required(
    source: Path, tmp_path: Path
) -> None:
    built = build_wheel(source, tmp_path, CC="false", CXX="false", CMPK_REQUIRE_NATIVE="1")
    assert built.returncode != 0
    assert not list(tmp_path.iterdir())


def test_the_metadata_carries_the_version_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"cmpk-{cmpk.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert b"cmpk=cmpk.cli:main" in archive.read(f"{info}/entry_points.txt").replace(b" ", b"")
    assert f"\nVersion: {cmpk.__version__}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


def test_a_source_archive_holds_what_the_native_build_needs_and_no_tests(
    source: Path, tmp_path: Path
) -> None:
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    built = run(sys.executable, "-c", code, tmp_path, cwd=source)
    assert built.returncode == 0, built.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cmpk/kernels/native").iterdir()}
    assert native | {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"} <= names
    assert not any(name.startswith("tests/") for name in names)

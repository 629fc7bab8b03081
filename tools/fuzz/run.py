"""Fuzz the kernels and the reader under AddressSanitizer; exits with 1 if anything is found.

``python tools/fuzz/run.py --seconds 5`` builds what it needs under build/fuzz, runs every target on its
corpus and then for five seconds on what becomes of it, and prints a line for each. An input that breaks
something is left under build/fuzz/findings; ``--replay FILE --target NAME`` runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["KERNELS", "READERS", "Target", "main", "run_target"]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
CORPUS = Path(__file__).parent / "corpus"

KERNELS = (
    "decode_floats",
    "decode_codes",
    "huffman_decode",
    "rans_decode",
    "decode_floats_baseline",
    "decode_codes_baseline",
    "rans_decode_baseline",
    "bitpack",
    "huffman_encode",
    "rans_encode",
    "code_lengths",
    "float_split",
    "narrow",
    "row_costs",
    "expansions",
    "product",
    "choices",
)
"""Programs of tools/fuzz/kernels."""

READERS = ("reader", "agreement")
"""Modules of tools/fuzz, in Python over the same kernels."""

_SANITIZERS = "address,undefined"

# Little is kept in quarantine, for its memory counts; no allocation and no process may grow large: a
# decompression bomb has to fail by arithmetic.
_ASAN_OPTIONS = (
    "detect_leaks=0:quarantine_size_mb=16:allocator_may_return_null=1:max_allocation_size_mb=1024"
    ":hard_rss_limit_mb=2560"
)


@dataclass(frozen=True)
class Target:
    """A target that is ready to run.

    Attributes
    ----------
    name : str
    command : list of str
        Takes the options of driver.cpp and session.py.
    environment : dict of str to str
        All of it.
    """

    name: str
    command: list[str]
    environment: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, run, report; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5, help="of the processor, for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=KERNELS + READERS, help="only this one")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="targets at a time")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run an input once, and show all of it")
    options = parser.parse_args(arguments)
    names = options.target or KERNELS + READERS
    started = time.monotonic()
    try:
        targets = _build(names, options.jobs)
    except subprocess.CalledProcessError as error:
        print(error.stdout or "", f"the fuzz targets could not be built: {error}", sep="\n", file=sys.stderr)
        return 1
    if options.replay:
        return max(
            subprocess.call([*target.command, options.replay], cwd=ROOT, env=target.environment)
            for target in targets
        )
    print(f"built in {time.monotonic() - started:.0f} s; {options.seconds:g} s for each target", flush=True)
    limits = ["--seconds", str(options.seconds), "--seed", str(options.seed)]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda target: run_target(target, limits, BUILD), targets))
    print(
        f"{sum(found)} of {len(targets)} targets found something; {time.monotonic() - started:.0f} s in all"
    )
    return 1 if any(found) else 0


def run_target(target: Target, limits: Sequence[str], folder: Path) -> bool:
    """Run a target, print a line, and more where it finds something.

    Parameters
    ----------
    target : Target
    limits : sequence of str
        Options that say for how long.
    folder : Path
        Where the input that is being run is kept meanwhile, and findings go.

    Returns
    -------
    bool
        Whether it found something.
    """
    current = folder / f"{target.name}.input"
    corpus = sorted(map(str, CORPUS.glob(f"{target.name.removesuffix('_baseline')}/*")))
    command = [*target.command, *limits, "--input", str(current), *corpus]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=target.environment,
    )
    if done.returncode == 0:
        words = done.stdout.split()
        figures = dict(zip(words[::2], words[1::2], strict=False))
        rate = float(figures["runs"]) / max(float(figures["seconds"]), 0.1)
        print(f"{target.name:22} {int(figures['runs']):10,} runs {rate:8,.0f}/s  nothing found", flush=True)
        return False
    path = _kept(current, target.name, folder / "findings")
    print(
        f"{target.name:22} FOUND SOMETHING (exit code {done.returncode}); the input is in {path}\n"
        f"  again: python tools/fuzz/run.py --target {target.name} --replay {path}\n{_tail(done.stderr)}",
        flush=True,
    )
    return True


def _kept(current: Path, name: str, folder: Path) -> Path:
    """The input that was being run, in a file of its own."""
    content = current.read_bytes() if current.exists() else bytes(8)
    data = content[8 : 8 + int.from_bytes(content[:8], "little")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def _tail(text: str) -> str:
    """The part of a report that tells what happened: from the sanitizer's first line on, or the end."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if "ERROR" in line or "runtime error" in line), -30)
    return "\n".join(f"  | {line}" for line in lines[first:][:40])


def _build(names: Sequence[str], jobs: int) -> list[Target]:
    kernels = [name for name in names if name in KERNELS]
    readers = [name for name in names if name in READERS]
    targets = []
    if kernels:
        _cmake(Path(__file__).parent, BUILD / "kernels", jobs, kernels, FUZZ_SANITIZE=_SANITIZERS)
        targets += [Target(name, [str(BUILD / "kernels" / name)], _environment()) for name in kernels]
    if readers:
        compiler = _Compiler.found()
        python = {"Python_EXECUTABLE": sys.executable, "CMPK_SANITIZE": _SANITIZERS}
        _cmake(ROOT, BUILD / "extension", jobs, ["_native"], **python, **compiler.variables)
        targets += [_reader(name, compiler) for name in readers]
    return targets


class _Compiler(NamedTuple):
    """What a program that is not sanitized needs to load a library that is."""

    variables: dict[str, str]
    """Of CMake."""
    preload: list[str]
    """Libraries: AddressSanitizer has to be there first, and the C++ library with it: it wraps exceptions."""

    @classmethod
    def found(cls) -> _Compiler:
        """That of the compiler that CMake finds."""
        command = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")
        is_clang = "clang" in _output([command, "--version"])
        runtime = f"libclang_rt.asan-{platform.machine()}.so" if is_clang else "libasan.so"
        libraries = [_output([command, f"-print-file-name={name}"]) for name in (runtime, "libstdc++.so")]
        return cls({"CMAKE_SHARED_LINKER_FLAGS": "-shared-libasan"} if is_clang else {}, libraries)


def _reader(name: str, compiler: _Compiler) -> Target:
    """A target in Python, with the kernels that were built for it."""
    native = BUILD / "extension" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    # With Python's own allocator small objects share blocks, within which no access is out of bounds.
    environment = _environment(LD_PRELOAD=":".join(compiler.preload), PYTHONMALLOC="malloc")
    return Target(name, [sys.executable, "-m", f"tools.fuzz.{name}", "--native", str(native)], environment)


def _environment(**added: str) -> dict[str, str]:
    return {**os.environ, "ASAN_OPTIONS": _ASAN_OPTIONS, "UBSAN_OPTIONS": "print_stacktrace=1", **added}


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cmake(source: Path, build: Path, jobs: int, targets: Sequence[str], **variables: str) -> None:
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    # Hardly slower than more optimization under sanitizers, and built in half the time.
    given = ["-DCMAKE_BUILD_TYPE=Fuzz", "-DCMAKE_CXX_FLAGS_FUZZ=-O1"]
    given += [f"-D{name}={value}" for name, value in variables.items()]
    _quietly(["cmake", "-S", str(source), "-B", str(build), *generator, *given])
    _quietly(["cmake", "--build", str(build), "--parallel", str(jobs), "--target", *targets])


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


if __name__ == "__main__":
    sys.exit(main())

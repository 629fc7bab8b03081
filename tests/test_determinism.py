"""The same input, recipe and version give the same bytes, whatever else is different."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import cmpk
import cmpk.numpy
from cmpk.archive import Archive, leaves_of
from cmpk.codecs import Zstd
from cmpk.kernels import active_name

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ["lossless", "lossless-max"]


def model() -> dict[str, np.ndarray[Any, Any]]:
    """Tensors of every structure that the packer looks for."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1024, 512)) * 0.02).astype(np.float32)
    rows[::2] *= np.float32(1e-4)
    rows[512:600] = rows[512:600].astype(np.float16)
    return {
        "grouped": rows,
        "plain": rng.standard_normal((300, 200)).astype(np.float32),
        "half": rng.standard_normal(40_000).astype(np.float16),
        "narrow": rng.standard_normal(9000).astype(np.float32).astype(np.float64),
        "signs": rng.choice(np.float32([-1, 1]), 70_000),
        "noise": rng.integers(0, 256, 50_000, np.uint8),
        "steps": np.arange(5000),
        "copy": np.arange(5000),
        "small": np.float32([1, 2, 3]),
        "empty": np.empty((0, 4), np.float32),
    }


def packed(source: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    cmpk.pack(source, sink, **options)
    return sink.getvalue()


def streams(data: bytes) -> dict[str, list[bytes]]:
    """The stored bytes of every tensor."""
    with Archive(data) as opened:
        return {
            name: [bytes(opened._read_stream(leaf)) for leaf in leaves_of(opened.stored(name))]
            for name in opened
        }


@pytest.mark.parametrize("recipe", RECIPES)
def test_any_number_of_threads_writes_the_same_file(recipe: str) -> None:
    expected = packed(model(), recipe=recipe, jobs=1)
    for jobs in (2, 3, 4):
        assert packed(model(), recipe=recipe, jobs=jobs) == expected


def test_threads_within_a_large_tensor_write_the_same_file() -> None:
    rng = np.random.default_rng(0)
    large = {"a": (rng.standard_normal(9 << 20) * 0.02).astype(np.float32)}
    assert packed(large, jobs=1) == packed(large, jobs=4)


def test_a_source_in_memory_and_its_file_have_the_same_streams(tmp_path: Path) -> None:
    tensors = model()
    del tensors["copy"]  # of which of two the other is a copy depends on their order
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
    assert streams(packed(tmp_path / "m.safetensors")) == streams(packed(tensors))


DIGEST = """
import hashlib, io, sys
sys.path.insert(0, {root!r})
import cmpk
from tests.test_determinism import model, packed
print(hashlib.sha256(packed(model(), recipe={recipe!r}, jobs={jobs})).hexdigest())
"""


@pytest.mark.parametrize("recipe", RECIPES)
def test_another_process_writes_the_same_file(recipe: str) -> None:
    """With another hash seed, other BLAS threads, in another locale and time zone."""
    expected = hashlib.sha256(packed(model(), recipe=recipe)).hexdigest()
    for seed, threads in (("1", "1"), ("2", "4")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "OPENBLAS_NUM_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "LC_ALL": "C",
            "TZ": "Asia/Kolkata",
        }
        code = DIGEST.format(root=str(ROOT), recipe=recipe, jobs=int(threads))
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


@pytest.mark.skipif(active_name() != "native", reason="the native kernels are not in use")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_kernels_make_no_difference(recipe: str) -> None:
    expected = hashlib.sha256(packed(model(), recipe=recipe)).hexdigest()
    code = DIGEST.format(root=str(ROOT), recipe=recipe, jobs=2)
    environment = {**os.environ, "CMPK_KERNELS": "reference"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_unchanged_tensor_keeps_its_streams_when_others_change(recipe: str) -> None:
    before = streams(packed(model(), recipe=recipe))
    for changed in model():
        other = model()
        if not other[changed].size:
            continue
        other[changed] = other[changed].copy()
        other[changed].reshape(-1)[:50] = 1
        after = streams(packed(other, recipe=recipe))
        aliases = {"steps", "copy"} if changed in ("steps", "copy") else set()
        for name in set(model()) - {changed} - aliases:
            assert after[name] == before[name], (changed, name)


def test_a_tensor_keeps_its_streams_whatever_its_name_and_neighbours() -> None:
    before = streams(packed(model()))
    for name, value in model().items():
        if name != "copy":
            assert streams(packed({"another.name": value}))["another.name"] == before[name]


def test_the_name_of_an_archive_is_told_by_its_content() -> None:
    digests = set()
    for tensors, metadata in (
        (model(), None),
        (dict(reversed(model().items())), None),
        (model(), {"a": "b"}),
        ({**model(), "small": np.float32([1, 2, 4])}, None),
    ):
        data = packed(tensors, metadata=metadata)
        assert packed(tensors, metadata=metadata) == data
        digests.add(Archive(data).sha256)
    assert len(digests) == 4


def test_levels_of_zstd_do_not_depend_on_what_was_coded_before() -> None:
    codec = Zstd(19)
    data = np.arange(100_000, dtype=np.uint32).view(np.uint8)
    first = bytes(codec.encode(data))
    codec.encode(data[::-1].copy())
    assert bytes(codec.encode(data)) == first == bytes(Zstd(19).encode(data))

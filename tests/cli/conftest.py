"""A small model of every kind of tree, its archive, and ways to run the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import cmpk
from cmpk.cli.app import cli
from cmpk.format import ContainerWriter, Manifest, Node, TensorEntry

ROOT = Path(__file__).resolve().parents[2]

Invoke = Callable[..., Result]
RunProcess = Callable[..., "subprocess.CompletedProcess[bytes]"]


def safetensors_bytes(tensors: Mapping[str, tuple[str, np.ndarray]]) -> bytes:
    """A safetensors file of arrays and the dtypes that their bytes are of."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, array) in tensors.items():
        table[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    data = b"".join(array.tobytes() for _, array in tensors.values())
    return len(header).to_bytes(8, "little") + header + data


def bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.fixture(autouse=True)
def _buffered_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes buffer their output, as for users: some errors appear only with the last flush."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file: split floats, floats that are narrower, a duplicate, an empty tensor, integers."""
    rng = np.random.default_rng(11)
    embedding = rng.normal(0, 0.02, (512, 64))
    head = rng.normal(0, 0.05, (96, 64)).astype(np.float16).astype(np.float32)
    tensors = {
        "embedding.weight": ("BF16", bf16(embedding)),
        "head.weight": ("F32", head),
        "output.weight": ("BF16", bf16(embedding)),
        "norm.bias": ("F32", rng.normal(0, 1, 48).astype(np.float32)),
        "position_ids": ("I64", np.arange(512)),
        "unused": ("F32", np.zeros((0, 4), np.float32)),
        "step": ("I64", np.array(7)),
    }
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    return path


@pytest.fixture(scope="session")
def archive_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.cmpk"
    cmpk.pack(model_path, path, jobs=1)
    return path


@pytest.fixture
def needy_path(tmp_path: Path) -> Path:
    """An archive that needs a codec and an encoding which nobody has installed."""
    path = tmp_path / "needy.cmpk"
    with path.open("wb") as file:
        writer = ContainerWriter(file)
        strange = writer.add_stream("lz99", b"who knows")
        part = writer.add_stream("raw", b"\x01\x02\x03")
        branch = Node(encoding="wavelet", params={"levels": 3}, parts={"coarse": part})
        plain = writer.add_stream("raw", b"\x05\x06")
        writer.finish(
            Manifest(
                producer="test",
                providers={"lz99": "cmpk-lz99 1.2", "wavelet": "cmpk-waves 0.3"},
                tensors=[
                    TensorEntry(name="a", dtype="U8", shape=(20,), blake3="0" * 64, data=strange),
                    TensorEntry(name="b", dtype="U8", shape=(8,), blake3="0" * 64, data=branch),
                    TensorEntry(name="c", dtype="U8", shape=(2,), blake3="0" * 64, data=plain),
                ],
            )
        )
    return path


@pytest.fixture
def invoke() -> Invoke:
    """Runs the command line in this process; bugs come through as exceptions."""

    def run(*args: str | Path, **environment: str) -> Result:
        return CliRunner(catch_exceptions=False).invoke(cli, [str(arg) for arg in args], env=environment)

    return run


@pytest.fixture
def run_process() -> RunProcess:
    """Runs the command line as a process of its own."""

    def run(*args: str | Path, **env: str) -> subprocess.CompletedProcess[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
        command = [sys.executable, "-m", "cmpk.cli", *map(str, args)]
        return subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment)

    return run

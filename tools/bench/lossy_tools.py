"""Tools that make a model smaller with a loss: each gives the file that it makes, and its weights again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from . import models
from .process import BenchError

__all__ = ["CALIBRATED_MB", "DATA_FREE_MB", "NNCODEC_QPS", "RECIPES", "Made", "Tool", "peers", "tools"]

Tensors = Mapping[str, torch.Tensor]

DATA_FREE_MB = (6.0, 8.0, 10.0, 12.0, 12.37, 16.0, 20.0, 20.75)
CALIBRATED_MB = (6.0, 8.0, 9.72, 10.0, 12.0, 12.37, 16.0, 20.0)
"""Sizes of the curves, and those that are to be reached."""

NNCODEC_QPS = (-38, -34, -30, -28, -26)
"""Quantization parameters of the coder of ISO/IEC 15938-17, its other settings as they are."""

RECIPES = ("balanced", "int8", "int4", "nf4", "fp8", "ternary", "deep-compression")


class Made(NamedTuple):
    """A smaller model.

    Attributes
    ----------
    nbytes : int
        Of all that must be kept of it.
    seconds : float
        What making it took, calibration left out.
    tensors : mapping of str to tensor
        What it gives back.
    """

    nbytes: int
    seconds: float
    tensors: Tensors


class Tool(NamedTuple):
    """One way to make the model smaller.

    Attributes
    ----------
    family : str
        What a curve is of.
    name : str
    make : function
        Given a folder, does it.
    """

    family: str
    name: str
    make: Callable[[Path], Made]


def tools(calibration: Path) -> list[Tool]:
    """What cmpk offers; the calibration was saved to a file."""
    found = [Tool("cmpk", f"{size:g} MB", partial(_planned, size, None)) for size in DATA_FREE_MB]
    found += [
        Tool("cmpk, calibrated", f"{size:g} MB", partial(_planned, size, calibration))
        for size in CALIBRATED_MB
    ]
    return found + [Tool("cmpk, recipes", name, partial(_recipe, name)) for name in RECIPES]


def peers(nncodec: Path | None = None) -> list[Tool]:
    """Other tools, used as their manuals say; those that are not installed fail when they are run.

    Parameters
    ----------
    nncodec : Path, optional
        The Python of an environment that has that package.
    """
    found = (
        []
        if nncodec is None
        else [Tool("nncodec", f"qp {qp}", partial(_nncodec, nncodec, qp)) for qp in NNCODEC_QPS]
    )
    return [
        *found,
        Tool("torchao", "int8, per row", partial(_torchao, 8, 0)),
        Tool("torchao", "int4, groups of 32", partial(_torchao, 4, 32)),
        Tool("GGUF", "Q8_0", partial(_gguf, "Q8_0")),
        Tool("GGUF", "Q4_0", partial(_gguf, "Q4_0")),
    ]


def _planned(megabytes: float, calibration: Path | None, folder: Path) -> Made:
    return _packed(folder, target_size=round(megabytes * 1e6), calibration=calibration)


def _recipe(name: str, folder: Path) -> Made:
    return _packed(folder, recipe=name)


def _packed(folder: Path, **options: Any) -> Made:
    import cmpk

    source, path = models.reference(), folder / "packed.cmpk"
    assert source is not None  # the original was read from it
    started = time.perf_counter()
    cmpk.pack(source, path, force=True, **options)
    seconds = time.perf_counter() - started
    return Made(path.stat().st_size, seconds, cmpk.torch.load_file(path))


def _torchao(bits: int, group: int, folder: Path) -> Made:
    """Weights as torchao's integers with scales in half precision; what is no matrix, in half precision."""
    from safetensors.torch import save_file
    from torchao.quantization import quant_primitives as ao

    limit = (1 << bits - 1) - 1
    stored, back = {}, {}
    started = time.perf_counter()
    for name, tensor in _floats().items():
        if tensor.ndim < 2:
            stored[name] = tensor.half()
            back[name] = stored[name].float()
            continue
        block = (1, group or tensor.shape[1])
        kind = ao.MappingType.SYMMETRIC
        scale, zero = ao.choose_qparams_affine(tensor, kind, block, torch.int8, -limit - 1, limit)
        scale = scale.half().float()
        codes = ao.quantize_affine(tensor, block, scale, zero, torch.int8, -limit - 1, limit)
        back[name] = ao.dequantize_affine(codes, block, scale, zero, torch.int8, -limit - 1, limit)
        halves = codes.reshape(-1, 2) & 15
        stored[name] = codes if bits == 8 else halves[:, 0] | halves[:, 1] << 4
        stored[f"{name}.scale"] = scale.half()
    path = folder / "torchao.safetensors"
    save_file(stored, path)
    return Made(path.stat().st_size, time.perf_counter() - started, back)


def _gguf(kind: str, folder: Path) -> Made:
    """Matrices in a type of GGUF's, what is none in half precision, in a file as its package writes it."""
    import gguf
    from gguf import quants

    wanted = gguf.GGMLQuantizationType[kind]
    path = folder / "model.gguf"
    back = {}
    started = time.perf_counter()
    writer = gguf.GGUFWriter(os.fspath(path), "bert")
    for name, tensor in _floats().items():
        values = tensor.numpy()
        chosen = wanted if values.ndim == 2 else gguf.GGMLQuantizationType.F16
        stored = quants.quantize(values, chosen)
        writer.add_tensor(name, stored, raw_dtype=chosen)
        back[name] = torch.from_numpy(np.array(quants.dequantize(stored, chosen), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Made(path.stat().st_size, time.perf_counter() - started, back)


def _nncodec(python: Path, qp: int, folder: Path) -> Made:
    from safetensors.torch import load_file

    source, bitstream, back = models.reference(), folder / "model.nnc", folder / "nncodec.safetensors"
    assert source is not None  # the original was read from it
    worker = Path(__file__).with_name("nncodec_worker.py")
    command = [os.fspath(item) for item in (python, worker, source, str(qp), bitstream, back)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"nncodec failed: {done.stderr.strip()[-500:]}")
    seconds = float(done.stdout.rpartition("seconds ")[2])
    return Made(bitstream.stat().st_size, seconds, load_file(back))


def _floats() -> Tensors:
    from .minilm import original

    return {name: tensor for name, tensor in original().items() if tensor.is_floating_point()}

"""Decoding on a device: compressed bytes go over the bus, kernels there put the tensors together."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmpk.errors import CmpkError, DeviceError

if TYPE_CHECKING:
    import torch

__all__ = ["about", "kernels_of", "on_device"]

_KERNELS = "cmpk.kernels.triton"

_ON_THE_CPU = "zstd and plugins' codecs; bitmask, gap_index, product, and codebook of vectors or rows"
"""What no kernel of a device decodes; the planes or bytes that come of it go over the bus."""


def kernels_of(device: torch.device) -> str | None:
    """The kernels that decode on a device; None where tensors are decoded on the CPU and copied."""
    return None if device.type != "cuda" or _reason() else _KERNELS.rpartition(".")[2]


def about() -> str:
    """How tensors get onto CUDA devices here, in a line."""
    reason = _reason()
    if reason:
        return f"decoded on the CPU, then copied: {reason}"
    version = importlib.import_module("triton").__version__
    return (
        f"decoded on the device by Triton {version} kernels, as are the weights of models that stay packed; "
        f"on the CPU first: {_ON_THE_CPU}"
    )


@contextlib.contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Launch on a device; whatever torch and Triton raise becomes a `DeviceError`."""
    import torch

    try:
        # Triton launches on the current one, whatever the addresses are of.
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            yield
    except CmpkError:
        raise
    except Exception as error:  # Triton's errors have no root of their own
        raise DeviceError(
            f"decoding on {device} failed: {error}; load onto 'cpu' and move the tensors"
        ) from error


@functools.cache
def _reason() -> str:
    """Why nothing is decoded on CUDA devices; empty if it is."""
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    try:
        importlib.import_module("triton")
    except ImportError:
        return "Triton is not installed"
    return ""

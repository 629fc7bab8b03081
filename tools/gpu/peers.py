"""nvCOMP on the tensors that the kernels are measured with, where it is installed.

Its ANS coder gets each tensor's bytes plane by plane, the exponents' apart from the mantissas', which is what
it does best on floats; its times have no merging of the planes in them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["nvcomp_rates", "planes_of"]

Timed = Callable[[Callable[[], object]], float]


def nvcomp_rates(tensors: Mapping[str, torch.Tensor], milliseconds: Timed) -> dict[str, Any]:
    """Rate of decoding and size with nvCOMP's ANS; or why there is none.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        On a CUDA device.
    milliseconds : function
        Times a function on the device.

    Raises
    ------
    RuntimeError
        If what it decodes is not what it was given.
    """
    try:
        nvcomp = importlib.import_module("nvidia.nvcomp")
    except ImportError as error:
        return {"nvCOMP": f"NOT MEASURED: {error}; pip install nvidia-nvcomp-cu12"}
    planes = [plane for tensor in tensors.values() for plane in planes_of(tensor)]
    # The version's interface may be another one: then that is told, and all else is measured.
    try:
        codec = nvcomp.Codec(algorithm="ANS")
        coded = codec.encode([nvcomp.as_array(plane) for plane in planes])
        decoded = codec.decode(coded)
        took = milliseconds(lambda: codec.decode(coded))
        sizes = [len(torch.as_tensor(part, device="cuda").view(torch.uint8)) for part in coded]
        found = [torch.as_tensor(part, device="cuda").view(torch.uint8).reshape(-1) for part in decoded]
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        return {"nvCOMP": f"NOT MEASURED: version {getattr(nvcomp, '__version__', '?')}: {error}"}
    if not all(torch.equal(part, plane) for part, plane in zip(found, planes, strict=True)):
        raise RuntimeError("nvCOMP does not give back what it was given")
    nbytes = sum(plane.numel() for plane in planes)
    return {
        "nvCOMP": str(nvcomp.__version__),
        "nvCOMP ANS, bytes": sum(sizes),
        "nvCOMP ANS, us": round(1000 * took, 1),
        "nvCOMP ANS, GB/s": round(nbytes / took / 1e6, 1),
    }


def planes_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The bytes of a tensor by their place in its elements, the highest first.

    Where exponents have eight bits they are made a byte of their own: the sign moves behind the mantissa.

    Returns
    -------
    list of uint8 tensor, shape (numel,)
    """
    octets = tensor.contiguous().view(torch.uint8).reshape(-1, tensor.element_size())
    if tensor.dtype in (torch.bfloat16, torch.float32):
        signed = torch.int16 if tensor.element_size() == 2 else torch.int32
        words = tensor.contiguous().view(signed).reshape(-1)
        # A rotation by one: shifts of signed words fill with the sign, which the mask takes off again.
        words = words << 1 | words >> (8 * tensor.element_size() - 1) & 1
        octets = words.view(torch.uint8).reshape(-1, tensor.element_size())
    return [octets[:, place].contiguous() for place in reversed(range(octets.shape[1]))]

"""Runs nncodec, in an environment of its own, for its needs clash with others': SOURCE QP BITSTREAM BACK.

Imports nothing but that package, NumPy and safetensors.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import safetensors.numpy


def main(source: str, qp: str, bitstream: str, back: str) -> None:
    """Encode the floats of a safetensors file, and what they decode to; prints the seconds of encoding."""
    from nncodec import nn

    tensors = {
        name: values
        for name, values in safetensors.numpy.load_file(source).items()
        if values.dtype == np.float32
    }
    started = time.perf_counter()
    coded = nn.encode(tensors, {"qp": int(qp), "results": str(Path(bitstream).parent), "verbose": False})
    seconds = time.perf_counter() - started
    Path(bitstream).write_bytes(coded)
    decoded = nn.decode(coded)
    found = {
        name: np.ascontiguousarray(decoded[name], np.float32).reshape(values.shape)
        for name, values in tensors.items()
    }
    safetensors.numpy.save_file(found, back)
    print(f"\nseconds {seconds}")


if __name__ == "__main__":
    main(*sys.argv[1:])

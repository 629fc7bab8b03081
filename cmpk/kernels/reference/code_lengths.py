"""Symbol counts and optimal length-limited code lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmpk.kernels.interface import U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of

__all__ = ["MAX_TOTAL_COUNT", "byte_histogram", "code_lengths"]

MAX_TOTAL_COUNT = 1 << 56
"""A package weighs at most 16 times the sum of all counts: its weight must not overflow 64 bits."""

_BLOCK = 1 << 22


def byte_histogram(data: Buffer) -> NDArray[np.uint64]:
    """How often each byte occurs; uint64, shape (256,)."""
    octets = bytes_of(data)
    counts = np.zeros(256, np.uint64)
    # bincount widens its input to eight bytes a symbol: by blocks, memory stays bounded.
    for start in range(0, octets.size, _BLOCK):
        counts += np.bincount(octets[start : start + _BLOCK], minlength=256).astype(np.uint64)
    return counts


def code_lengths(counts: NDArray[np.uint64], max_length: int) -> U8:
    """Optimal length-limited code lengths, by package-merge.

    Parameters
    ----------
    counts : uint64 array, shape (256,)
        How often each symbol occurs; their sum is at most `MAX_TOTAL_COUNT`.
    max_length : int
        Longest code allowed, 1 .. 16; 2**max_length codes must suffice.

    Returns
    -------
    uint8 array, shape (256,)
        0 for a symbol that does not occur, 1 for a single symbol. Of two symbols with the same
        count the lower one's code is not the longer.

    References
    ----------
    Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", 1990.
    """
    if counts.shape != (256,) or counts.dtype != np.uint64:
        raise ValueError(f"counts must be uint64 [256], got {counts.dtype} {list(counts.shape)}")
    weights = [int(count) for count in counts]
    if not 1 <= max_length <= 16:
        raise ValueError(f"max_length is {max_length}; it must be 1 .. 16")
    if sum(weights) > MAX_TOTAL_COUNT:
        raise ValueError(f"counts add up to more than {MAX_TOTAL_COUNT}")
    lengths = np.zeros(256, np.uint8)
    # What stands earlier in the list gets the longer code, hence the higher symbol first.
    symbols = sorted((s for s in range(256) if weights[s]), key=lambda s: (weights[s], -s))
    if len(symbols) > 1 << max_length:
        raise ValueError(f"{len(symbols)} symbols do not fit codes of at most {max_length} bits")
    if len(symbols) == 1:
        lengths[symbols[0]] = 1
    if len(symbols) > 1:
        for taken in _leaves_taken([weights[s] for s in symbols], max_length):
            lengths[symbols[:taken]] += 1
    return lengths


def _leaves_taken(leaves: list[int], n_levels: int) -> list[int]:
    """For each level of package-merge, how many of the lightest leaves the solution takes.

    Each time a leaf is taken its code grows by one bit. `leaves` are ascending weights, two or
    more. On equal weights a leaf goes before a package.
    """
    levels: list[list[bool]] = []
    packages: list[int] = []
    for _ in range(n_levels):
        items = sorted([(weight, False) for weight in leaves] + [(weight, True) for weight in packages])
        levels.append([is_package for _, is_package in items])
        packages = [items[i][0] + items[i + 1][0] for i in range(0, len(items) - 1, 2)]
    taken = []
    n_items = 2 * len(leaves) - 2
    for level in reversed(levels):
        n_packages = sum(level[:n_items])
        taken.append(n_items - n_packages)
        n_items = 2 * n_packages
    return taken

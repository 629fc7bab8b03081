"""What operations give stays as it is, whatever memory it shares with what else they give."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cmpk.kernels.interface import U8, KernelBackend

SIZES = (1, 16_384, 16_385, 100_000, 1_400_000, 2_097_152, 2_100_000)
"""Elements; of outputs below, within and beyond the size of memory that is shared."""


def elements(seed: int) -> U8:
    n = SIZES[seed % len(SIZES)]
    return np.resize(np.random.default_rng(seed).integers(0, 256, 997, np.uint8), 2 * n)


def keep_and_drop(backend: KernelBackend, first_seed: int) -> None:
    """Split many tensors, keep their parts for different times, and look at each when it goes."""
    kept: list[tuple[U8, U8, U8]] = []
    order = random.Random(first_seed)
    for seed in range(first_seed, first_seed + 40):
        data = elements(seed)
        high, rest, *_ = backend.float_split(data, "BF16", 0, 0)
        kept.append((data, high, rest))
        while len(kept) > order.randint(0, 6):
            data, high, rest = kept.pop(order.randrange(len(kept)))
            words = data.view("<u2")
            assert high.tobytes() == (words >> 7).astype(np.uint8).tobytes()
            assert rest.tobytes() == ((words >> 8 & 0x80) | (words & 0x7F)).astype(np.uint8).tobytes()


def test_outputs_keep_their_bytes_while_others_come_and_go(backend: KernelBackend) -> None:
    keep_and_drop(backend, 0)


def test_outputs_of_several_threads_keep_their_bytes(backend: KernelBackend) -> None:
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(keep_and_drop, backend, seed) for seed in (100, 200, 300)]:
            done.result()


def test_outputs_can_be_let_go_by_another_thread_than_the_one_that_made_them(backend: KernelBackend) -> None:
    with ThreadPoolExecutor(1) as pool:
        made = [pool.submit(backend.float_split, elements(seed), "BF16", 0, 0).result() for seed in range(20)]
    for seed in range(20):
        words = elements(seed).view("<u2")
        high, *_ = made.pop(0)
        assert high.tobytes() == (words >> 7).astype(np.uint8).tobytes()
    keep_and_drop(backend, 7)

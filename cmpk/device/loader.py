"""Archive → tensors that are decoded on their device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch

from cmpk.archive import Archive
from cmpk.device.preparing import task_of
from cmpk.device.ring import Ring
from cmpk.device.tasks import MAX_COUNT, Task, batches
from cmpk.encodings.base import allocate, byte_range
from cmpk.encodings.jobs import BytesJob, DeviceJob, aligned
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import Source
from cmpk.kernels.triton.errors import corrupt

__all__ = ["SMALL_NBYTES", "decode_onto", "decode_rows"]

SMALL_NBYTES = 1 << 16
"""Tensors up to this size are decoded on the CPU, all at once: each costs less there than it takes to tell
kernels of it."""


def decode_onto(
    archive: Archive, outs: Mapping[str, torch.Tensor], threads: int, ring: Ring | None = None
) -> None:
    """Decode whole tensors to where they are.

    Parameters
    ----------
    archive : Archive
    outs : mapping of str to torch.Tensor
        Contiguous, of the shape and type that the archive has for each name, all on one device.
    threads : int
        For what the CPU does on the way.
    ring : Ring, optional
        What the bytes pass through; one of the usual size by default.

    Raises
    ------
    CorruptStreamError
        If a stream is damaged; the message names the tensor. The tensors are then in an undefined state.
    """
    if not outs:
        return
    device = next(iter(outs.values())).device
    errors = torch.zeros(len(outs), dtype=torch.int32, device=device)
    ring = ring or Ring(device)

    def tasks() -> Iterator[Task]:
        small = _decoded_here(archive, outs, threads)
        for number, (name, out) in enumerate(outs.items()):
            error = errors.data_ptr() + 4 * number
            for job in [small[name]] if name in small else _jobs(archive, name, threads):
                yield task_of(name, job, out.data_ptr(), error, threads)

    with _damage_named(archive, outs):
        ring.run(batches(tasks(), ring.slot_nbytes, ring.scratch_nbytes))
    _check(archive, dict(zip(outs, errors.tolist(), strict=True)), threads)


def _decoded_here(archive: Archive, names: Iterable[str], threads: int) -> dict[str, BytesJob]:
    """The small ones among tensors, decoded by one call of the CPU's kernels."""
    sizes = {name: archive.spec(name).nbytes for name in names}
    small = {name: nbytes for name, nbytes in sizes.items() if nbytes <= SMALL_NBYTES}
    data, outs, at = allocate(sum(small.values())), {}, 0
    for name, nbytes in small.items():
        outs[name] = data[at : at + nbytes]
        at += nbytes
    if outs:
        archive.read_into(outs, threads)
    return {name: BytesJob(len(out), 0, len(out), Source("raw", out)) for name, out in outs.items()}


@contextlib.contextmanager
def _damage_named(archive: Archive, names: Iterable[str]) -> Iterator[None]:
    """Check digests meanwhile; an error for what was decoded or not checked names the tensor."""
    try:
        with archive.digests_checked(names):
            yield
    except CorruptStreamError:
        for name in names:
            archive.read(name)
        raise


def decode_rows(
    archive: Archive,
    ranges: Mapping[str, tuple[int, int]],
    device: torch.device,
    threads: int,
    ring: Ring | None = None,
) -> dict[str, torch.Tensor]:
    """Decode some rows of tensors, and little more than these.

    Parameters
    ----------
    archive : Archive
    ranges : mapping of str to pair of int
        Elements ``start .. stop - 1`` of each tensor, at least one; whole rows.
    device : torch.device
    threads : int
    ring : Ring, optional
        As that of `decode_onto`.

    Returns
    -------
    dict of str to uint8 tensor, shape (bytes of these elements,)

    Raises
    ------
    CorruptStreamError
        If what had to be decoded is damaged; the message names the tensor.
    """
    errors = torch.zeros(len(ranges), dtype=torch.int32, device=device)
    ring = ring or Ring(device)
    outs: dict[str, torch.Tensor] = {}
    skipped: dict[str, int] = {}
    for name, (start, stop) in ranges.items():
        # Ranges start with a block, and kernels store whole blocks at aligned addresses.
        first = aligned(archive.stored(archive.target_of(name)), start)
        cut, before = (byte_range(archive.spec(name), first, end) for end in (stop, start))
        outs[name] = torch.empty(cut.stop - cut.start, dtype=torch.uint8, device=device)
        skipped[name] = before.stop - before.start

    def tasks() -> Iterator[Task]:
        for number, (name, (start, stop)) in enumerate(ranges.items()):
            out, error = outs[name].data_ptr(), errors.data_ptr() + 4 * number
            for job in _jobs(archive, name, threads, start, stop):
                yield task_of(name, job, out if job.rows is None else out + skipped[name], error, threads)

    with _damage_named(archive, ranges):
        ring.run(batches(tasks(), ring.slot_nbytes, ring.scratch_nbytes))
    _check(archive, dict(zip(outs, errors.tolist(), strict=True)), threads)
    return {name: out[skipped[name] :].clone() if skipped[name] else out for name, out in outs.items()}


def _check(archive: Archive, flags_of: Mapping[str, int], threads: int) -> None:
    """Raise for the first tensor in which a kernel has found something wrong."""
    for name, flags in flags_of.items():
        if flags:
            archive.read(name, threads)  # the CPU tells more exactly what is wrong, if it sees it
            raise CorruptStreamError(f"tensor {name!r}: {corrupt(flags)}")


def _jobs(
    archive: Archive, name: str, threads: int, start: int = 0, stop: int | None = None
) -> list[DeviceJob]:
    jobs = archive.jobs(name, threads, start, stop)
    if all(job.row_elements <= MAX_COUNT for job in jobs):
        return jobs
    # Rows that kernels can't count within: all together in place of them.
    spec = archive.spec(name)
    stop = spec.numel if stop is None else stop
    first = aligned(archive.stored(archive.target_of(name)), start)
    data = archive.read_range(name, first, stop, threads)
    return [BytesJob(len(data), 0, len(data), Source("raw", data))]

"""Fuzz the reader: any bytes yield tensors or a `CmpkError`, in bounded time and memory.

Whatever can be done with a file is done with each: open, verify, load through both front doors, take
slices, unpack, inspect. What a deep verification finds whole must load, alike everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from cmpk.archive import Archive
from cmpk.errors import CmpkError, SourceError
from cmpk.unpacking import unpack
from tools.fuzz.archives import Archives, with_right_digests
from tools.fuzz.samples import packed_samples, vectors
from tools.fuzz.session import main

__all__ = ["Reader"]

_MAX_DECODED = 1 << 26
"""Files that hold more are opened, verified as they are stored and inspected, but not decoded."""

_TOO_LARGE = 1 << 31
"""Tensors of which there can't be memory for one (run.py sees to that), so that decoding fails at once."""

_ONE_IN = 16
"""Inputs of which one is measured, or printed: both are slow."""


class Reader:
    """The target."""

    def __init__(self) -> None:
        self._torch = _torch_front_door()
        valid = [*vectors("valid"), *packed_samples()]
        self._seeds = [*valid, *vectors("invalid")]
        self._archives = Archives(valid)

    def seeds(self) -> Iterable[bytes]:
        """Vectors of the specification, and files that cmpk packs."""
        return self._seeds

    def mutate(self, data: bytes, random: Random) -> bytes:
        """Another archive."""
        return self._archives.mutate(data, random)

    def run(self, data: bytes) -> Hashable:
        """Do everything with the file; then once more with the digests of what it decodes to."""
        outcome = self._run(data)
        if "read" not in outcome or "deep" in outcome:
            return outcome
        restated = with_right_digests(data)
        return outcome if restated == data else (*outcome, *self._run(restated))

    def _run(self, data: bytes) -> tuple[str, ...]:
        # The same choices for the same input, so that a finding can be run again.
        random = Random(hashlib.sha256(data).digest())
        outcome: list[str] = []
        with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
            path = Path(folder, "a.cmpk")
            path.write_bytes(data)
            if random.randrange(_ONE_IN) == 0:
                _check_memory(data)
                _inspect(path)
            try:
                archive = Archive(data if random.random() < 0.5 else path)
            except CmpkError as error:
                return (_signature(error),)
            with archive:
                outcome += self._use(archive, path, random)
        return tuple(outcome)

    def _use(self, archive: Archive, path: Path, random: Random) -> Iterator[str]:
        yield "opened"
        with _caught() as caught:
            archive.verify()
        yield from caught
        sizes = [file.nbytes for file in archive.manifest.files]
        sizes += [size for size in (archive.spec(name).nbytes for name in archive) if size < _TOO_LARGE]
        if sum(sizes) > _MAX_DECODED:
            return
        is_whole = False
        with _caught() as caught:
            archive.verify(deep=True, threads=random.choice((1, 2)))
            is_whole = True
            yield "deep"
        yield from caught
        tensors: dict[str, bytes] = {}
        for name in archive:
            with _caught(is_whole) as caught:
                tensors[name] = archive.read(name).tobytes()
                yield "read"
                _check_view(archive, name, tensors[name])
            yield from caught
        yield from self._load(archive, path, tensors, is_whole, random)
        yield from _unpacked(archive, path.parent / "out", is_whole)

    def _load(
        self, archive: Archive, path: Path, tensors: dict[str, bytes], is_whole: bool, random: Random
    ) -> Iterator[str]:
        import cmpk.numpy

        with _caught() as caught:
            for name, array in cmpk.numpy.load_file(path, jobs=random.choice((1, 2))).items():
                _check_same(tensors, name, array.tobytes())
            yield "numpy"
        yield from caught
        for name in random.sample(list(archive), min(2, len(archive))):
            with _caught() as caught:
                _check_slice(archive, name, tensors, is_whole, random)
                yield "slice"
            yield from caught
        if self._torch is not None:
            with _caught() as caught:
                for name, data in self._torch(path, random):
                    _check_same(tensors, name, data)
                yield "torch"
            yield from caught


@contextlib.contextmanager
def _caught(is_whole: bool = False) -> Iterator[list[str]]:
    """Errors of cmpk's own, as what came of the input; of a file that is whole there must be none."""
    found: list[str] = []
    try:
        yield found
    except CmpkError as error:
        if is_whole:
            raise RuntimeError("a file that deep verification finds whole can't be read") from error
        found.append(_signature(error))


def _signature(error: CmpkError) -> str:
    """The error without what differs from input to input."""
    words = (word for word in str(error).split() if word.isalpha())
    return f"{type(error).__name__}: {' '.join(words)}"[:100]


def _check_same(tensors: dict[str, bytes], name: str, data: bytes) -> None:
    if tensors.get(name, data) != data:
        raise RuntimeError(f"tensor {name!r} is not the same everywhere")


def _check_view(archive: Archive, name: str, data: bytes) -> None:
    view = archive.view(name)
    if view is not None and view.tobytes() != data:
        raise RuntimeError(f"tensor {name!r} is not the same in the file")


def _check_slice(
    archive: Archive, name: str, tensors: dict[str, bytes], is_whole: bool, random: Random
) -> None:
    from cmpk.numpy import read_array

    spec = archive.spec(name)
    low, high = sorted(random.randrange(spec.shape[0] + 1) for _ in range(2)) if spec.shape else (0, 0)
    index: tuple[Any, ...] = (slice(low, high, random.randrange(1, 4)),) if spec.shape else ()
    part = read_array(archive, name, index, random.choice((1, 2)))
    # Of a file that is not whole, rows may be wrong: a decoder may begin at a sync point that lies.
    if is_whole:
        whole = np.frombuffer(tensors[name], part.dtype).reshape(spec.shape)
        if part.tobytes() != whole[index].tobytes():
            raise RuntimeError(f"rows {low} to {high} of tensor {name!r} are not those of the whole")


def _unpacked(archive: Archive, folder: Path, is_whole: bool) -> Iterator[str]:
    with _caught() as caught:
        written = unpack(archive, folder, jobs=1)
        yield "unpacked"
        files = [file for file in archive.manifest.files if file.sha256] if is_whole else []
        for file in files:
            if hashlib.sha256(folder.joinpath(*file.path.split("/")).read_bytes()).hexdigest() != file.sha256:
                raise RuntimeError(f"file {file.path!r} is not the one that was packed")
        if any(not path.resolve().is_relative_to(folder.resolve()) for path in written):
            raise RuntimeError("a file was written outside its folder")
    yield from caught
    if sorted(folder.parent.iterdir()) not in (
        [folder.parent / "a.cmpk"],
        [folder.parent / "a.cmpk", folder],
    ):
        raise RuntimeError("something was written outside the folder")


def _check_memory(data: bytes) -> None:
    """Opening must not take much more memory than the file and its manifest, which is bounded by it."""
    tracemalloc.start()
    try:
        with contextlib.suppress(CmpkError):
            Archive(data).close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > (1 << 25) + 512 * len(data):
        raise RuntimeError(f"opening {len(data)} bytes took {peak} bytes of memory")


def _inspect(path: Path) -> None:
    from click.testing import CliRunner

    from cmpk.cli.app import cli

    for command in (["inspect"], ["inspect", "--json", "--streams"], ["verify"]):
        result = CliRunner().invoke(cli, [command[0], str(path), *command[1:]], standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, CmpkError):
            raise result.exception


def _torch_front_door() -> Callable[[Path, Random], Iterator[tuple[str, bytes]]] | None:
    """Tensors of a file by way of torch; None where FUZZ_WITHOUT_TORCH is set: torch takes long to import."""
    if os.environ.get("FUZZ_WITHOUT_TORCH"):
        return None
    import torch

    import cmpk.torch

    def load(path: Path, random: Random) -> Iterator[tuple[str, bytes]]:
        for name, tensor in cmpk.torch.load_file(path, jobs=random.choice((1, 2))).items():
            yield name, tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        with cmpk.torch.safe_open(path) as opened:
            for name in opened.keys():  # noqa: SIM118  # not a dict
                with contextlib.suppress(SourceError):
                    opened.get_slice(name)[...]

    return load


def _memory_folder() -> str | None:
    """A folder that syncing costs nothing in, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    main(Reader)

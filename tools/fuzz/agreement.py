"""Fuzz three readers against each other: the native kernels, the reference kernels, and spec/decode.py.

They open the same files, find the same ones whole, and get the same bytes out of them. One leniency is
known: a reader need not look at a sync point that it does not use, so that of a stream with one that
lies it may still get the right bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

from cmpk import kernels
from cmpk.archive import Archive
from cmpk.errors import FormatError, UnknownIdError
from cmpk.kernels.interface import KernelBackend
from tools.fuzz.archives import Archives, with_right_digests
from tools.fuzz.samples import packed_samples, vectors
from tools.fuzz.session import main

sys.path.insert(0, str(Path(__file__).parents[2] / "spec"))
import decode  # the decoder is a program of its own

__all__ = ["Agreement"]

_MAX_DECODED = 1 << 18
"""The decoder of the specification is slow: files that hold more are only opened."""


class Found(NamedTuple):
    """What cmpk makes of a file with one of its backends; tensors that can't be read are None."""

    is_stored_right: bool
    is_whole: bool
    tensors: dict[str, bytes | None]


class Agreement:
    """The target."""

    def __init__(self) -> None:
        valid = [data for data in (*vectors("valid"), *packed_samples()) if len(data) < _MAX_DECODED // 16]
        self._seeds = [*valid, *vectors("invalid")]
        self._archives = Archives(valid)
        self._backends: dict[str, KernelBackend] = kernels.built_in()
        if "native" not in self._backends:
            raise SystemExit("the native kernels are not built")

    def seeds(self) -> Iterable[bytes]:
        """Vectors of the specification, and files that cmpk packs."""
        return self._seeds

    def mutate(self, data: bytes, random: Random) -> bytes:
        """Another archive."""
        return self._archives.mutate(data, random)

    def run(self, data: bytes) -> Hashable:
        """Read the file with all three; then once more with the digests of what it decodes to."""
        outcome, may_be_restated = self._run(data)
        if not may_be_restated:
            return outcome
        restated = with_right_digests(data)
        return outcome if restated == data else (outcome, self._run(restated)[0])

    def _run(self, data: bytes) -> tuple[Hashable, bool]:
        """What came of the file, and whether a tensor of it can be read though the file is not whole."""
        by_page = _opened_by_page(data)
        found = {name: self._read(data, backend) for name, backend in self._backends.items()}
        opened = {name: results for name, results in found.items() if results is not None}
        if by_page is None:
            # Padding need not be looked at before a file is verified.
            if any(results.is_stored_right for results in opened.values()):
                raise RuntimeError("cmpk opens and verifies what the specification does not")
            return None, False
        if len(opened) < len(found):
            raise RuntimeError("cmpk does not open what the specification does")
        if (
            sum(tensor.spec.nbytes for tensor in by_page.tensors) + sum(f.nbytes for f in by_page.files)
            > _MAX_DECODED
        ):
            return len(by_page.tensors), False
        return self._compare(by_page, opened)

    def _compare(self, by_page: decode.Archive, found: dict[str, Found]) -> tuple[Hashable, bool]:
        is_whole = _succeeds(by_page.validate)
        outcome = [is_whole]
        for name, results in found.items():
            if results.is_whole != is_whole:
                raise RuntimeError(f"{name} finds the file whole, or the specification does, but not both")
        for tensor in by_page.tensors:
            if tensor.data.encoding == "alias":
                continue
            expected = _tensor_by_page(tensor)
            outcome.append(expected is not None)
            is_lenient = expected is None and any(leaf.codec == "huffman" for leaf in tensor.data.leaves())
            got = [results.tensors[tensor.name] for results in found.values()]
            if any(data != expected and not is_lenient for data in got):
                raise RuntimeError(f"tensor {tensor.name!r} is not what the specification makes of it")
            if len({data for data in got if data is not None}) > 1:
                raise RuntimeError(f"the backends read tensor {tensor.name!r} differently")
        return tuple(outcome), any(outcome[1:]) and not is_whole

    def _read(self, data: bytes, backend: KernelBackend) -> Found | None:
        """What a backend makes of the file; None if it can't be opened."""
        try:
            archive = Archive(data)
        except FormatError:
            return None
        # Codecs and encodings ask for the backend each time, by this name.
        with archive, mock.patch.object(kernels, "active", return_value=backend):
            is_stored_right = _succeeds(archive.verify)
            if archive.decoded_nbytes + sum(file.nbytes for file in archive.manifest.files) > _MAX_DECODED:
                return Found(is_stored_right, False, {})
            is_whole = _succeeds(lambda: archive.verify(deep=True))
            return Found(is_stored_right, is_whole, {name: _tensor(archive, name) for name in archive})


def _opened_by_page(data: bytes) -> decode.Archive | None:
    try:
        return decode.Archive(data)
    except (decode.Corrupt, decode.Unsupported):
        return None


def _tensor_by_page(tensor: decode.Tensor) -> bytes | None:
    try:
        return bytes(decode.decode_checked(tensor.data, tensor.spec).tobytes())
    except (decode.Corrupt, decode.Unsupported):
        return None


def _tensor(archive: Archive, name: str) -> bytes | None:
    try:
        return archive.read(name).tobytes()
    except (FormatError, UnknownIdError):
        return None


def _succeeds(check: Callable[[], None]) -> bool:
    try:
        check()
    except (decode.Corrupt, decode.Unsupported, FormatError, UnknownIdError):
        return False
    return True


if __name__ == "__main__":
    main(Agreement)

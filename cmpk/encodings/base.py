"""What an encoding is: one tensor to named part tensors and back; and how a stored tree is decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import msgspec

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.errors import CmpkError, CorruptStreamError, FormatError, blame
from cmpk.format.manifest import Node, Params
from cmpk.kernels.interface import U8, Job, Source

__all__ = [
    "Branch",
    "Decoder",
    "Encoded",
    "Encoding",
    "Leaf",
    "Part",
    "Stored",
    "allocate",
    "byte_range",
    "check_params",
    "int_param",
    "known_spec",
]

T = TypeVar("T")


class Leaf(msgspec.Struct, frozen=True):
    """A stream that has been located, with the type and shape of the tensor in it.

    Attributes
    ----------
    node : Node
        As it is in the manifest.
    offset : int
        Where the stream starts in the file.
    spec : TensorSpec or None
        None below an encoding that is not installed.
    codec : Codec or None
        None if it is not installed.
    plugin : str
        The plugin that offers the codec, as ``name version``; empty for cmpk's own.
    """

    node: Node
    offset: int
    spec: TensorSpec | None
    codec: Codec | None
    plugin: str = ""


class Branch(msgspec.Struct, frozen=True):
    """An encoding and its parts; attributes as those of `Leaf`."""

    node: Node
    spec: TensorSpec | None
    encoding: Encoding | None
    parts: dict[str, Stored]
    plugin: str = ""


Stored: TypeAlias = Leaf | Branch


class Part(NamedTuple):
    """A part tensor.

    Attributes
    ----------
    spec : TensorSpec
    data : uint8 array, shape (spec.nbytes,)
    is_memoryless : bool
        Whether neighbouring bytes are known to say next to nothing about each other, so that only
        how often each occurs can pay.
    """

    spec: TensorSpec
    data: U8
    is_memoryless: bool = False


class Encoded(NamedTuple):
    """What `Encoding.encode` gives: parameters for the manifest, and the parts in their order."""

    params: Params
    parts: dict[str, Part]


class Encoding(ABC):
    """Turns a tensor into part tensors and back.

    Tensors are their bytes (spec/container.md, section 1) in uint8 arrays, shape (spec.nbytes,).
    """

    id: ClassVar[str]

    @abstractmethod
    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """Type and shape of each part, in file order; checks the parameters.

        Raises
        ------
        FormatError
            If the parameters break a rule of the encoding.
        """

    @abstractmethod
    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """Decode elements ``start .. stop - 1`` into ``out``, now or by a job of the decoder.

        Raises
        ------
        CorruptStreamError
            If the parts break a rule of the encoding.
        """

    def float_job(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> Job | None:
        """The same as one job that an outer encoding may still redirect; None if it is none."""
        return None

    def corrupt(self, what: str) -> CorruptStreamError:
        """The error for a broken rule, in the name of this encoding."""
        return CorruptStreamError(f"encoding {self.id!r}: {what}")


class Decoder:
    """Decodes stored trees; gathers jobs so that a whole model is one call to the kernels.

    Parameters
    ----------
    read : function
        Gives the stream of a leaf, checked against its digest.
    threads : int
        How many may be used.
    """

    def __init__(self, read: Callable[[Leaf], memoryview], threads: int = 1) -> None:
        self._read = read
        self.threads = threads
        self._jobs: list[Job] = []
        self._made: dict[int, tuple[Branch, Any]] = {}

    def decode(self, stored: Stored, start: int = 0, stop: int | None = None) -> U8:
        """Elements ``start .. stop - 1`` as bytes, now; maybe a read-only view of the file."""
        import numpy as np

        spec = known_spec(stored)
        stop = spec.numel if stop is None else stop
        if isinstance(stored, Leaf) and stored.node.codec == "raw":
            view = self._read(stored)
            if len(view) == spec.nbytes:
                return np.frombuffer(view, np.uint8)[byte_range(spec, start, stop)]
        cut = byte_range(spec, start, stop)
        out = allocate(cut.stop - cut.start)
        inner = Decoder(self._read, self.threads)
        inner.decode_into(stored, start, stop, out)
        inner.flush()
        return out

    def decode_into(self, stored: Stored, start: int, stop: int, out: U8) -> None:
        """Elements ``start .. stop - 1`` into ``out``, at the latest with `flush`."""
        try:
            self._decode_into(stored, start, stop, out)
        except MemoryError as error:
            raise CmpkError(f"not enough memory to decode {len(out)} bytes") from error

    def _decode_into(self, stored: Stored, start: int, stop: int, out: U8) -> None:
        if isinstance(stored, Branch):
            if stored.encoding is None:
                raise CmpkError(f"encoding {stored.node.encoding!r} is not installed")
            with blame(f"encoding {stored.encoding.id!r}", stored.plugin):
                stored.encoding.decode_range(stored, start, stop, out, self)
            return
        spec = known_spec(stored)
        if stored.codec is None:
            raise CmpkError(f"codec {stored.node.codec!r} is not installed")
        cut = byte_range(spec, start, stop)
        stream = self._read(stored)
        with blame(f"codec {stored.codec.id!r}", stored.plugin):
            stored.codec.decode_range(stream, spec.nbytes, cut.start, out, self.threads)

    def source(self, stored: Stored, start: int, stop: int) -> Source:
        """A part for a job of elements ``start .. stop - 1``.

        Its stream where the kernels decode it themselves; else its bytes, those of these elements in
        their place and the others undefined.
        """
        if isinstance(stored, Leaf) and stored.codec is not None and stored.codec.fused:
            return Source(stored.codec.id, self._read(stored))
        spec = known_spec(stored)
        data = allocate(spec.nbytes)
        inner = Decoder(self._read, self.threads)
        inner.decode_into(stored, start, stop, data[byte_range(spec, start, stop)])
        inner.flush()
        return Source("raw", data)

    def once(self, stored: Branch, make: Callable[[], T]) -> T:
        """What an encoding makes of the parts of a branch for whatever range, made for the first of them."""
        # By identity: a branch can't be hashed. It is kept, so that no other takes its place.
        if id(stored) not in self._made:
            self._made[id(stored)] = stored, make()
        found: T = self._made[id(stored)][1]
        return found

    def submit(self, job: Job) -> None:
        """Have a job done with the next `flush`."""
        self._jobs.append(job)

    def flush(self) -> None:
        """Do all jobs that were submitted."""
        jobs, self._jobs = self._jobs, []
        if jobs:
            try:
                kernels.active().decode_floats(jobs, self.threads)
            except MemoryError as error:
                raise CmpkError("not enough memory to decode") from error


def known_spec(stored: Stored) -> TensorSpec:
    """Type and shape of a stored tensor whose every outer encoding is installed."""
    if stored.spec is None:
        raise CmpkError("a part of an encoding that is not installed can't be decoded")
    return stored.spec


def byte_range(spec: TensorSpec, start: int, stop: int) -> slice:
    """Where elements ``start .. stop - 1`` stand in the bytes of a tensor."""
    nbits = DTYPES[spec.dtype].nbits
    if start * nbits % 8 or stop * nbits % 8:
        raise CmpkError(f"elements {start} to {stop} of {spec.dtype} do not start and end at whole bytes")
    return slice(start * nbits // 8, stop * nbits // 8)


def allocate(nbytes: int) -> U8:
    """Fresh memory.

    Raises
    ------
    CmpkError
        If there is not enough of it.
    """
    import numpy as np

    try:
        return np.empty(nbytes, np.uint8)
    except (MemoryError, ValueError) as error:
        raise CmpkError(f"not enough memory for {nbytes} bytes") from error


def check_params(params: Params, names: tuple[str, ...]) -> None:
    """Check that exactly these parameters are given.

    Raises
    ------
    FormatError
        If not.
    """
    if tuple(params) != names:
        raise FormatError(f"the parameters are {list(params)}, not {list(names)}")


def int_param(params: Mapping[str, object], name: str, low: int, high: int) -> int:
    """An integer parameter within ``low .. high``.

    Raises
    ------
    FormatError
        If it is something else.
    """
    value = params[name]
    if type(value) is not int or not low <= value <= high:
        raise FormatError(f"the parameter {name!r} is {value!r}, not an integer within {low} to {high}")
    return value

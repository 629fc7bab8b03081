"""The tools that are compared, each used the fastest way that it offers."""

from __future__ import annotations

import importlib
import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import safetensors.torch
import torch
import zstandard

import cmpk
import cmpk.torch
from cmpk.format import MemorySink

from .models import DTYPES

__all__ = ["CONTENDERS", "Contender", "Tensors"]

Tensors = Mapping[str, torch.Tensor]


class Contender(ABC):
    """One tool, for models of one dtype, on a number of threads.

    Only `pack` and `load` are timed; what they need is put in their hands before. Where a tool has
    no file format for a model, they work in memory, to its advantage.
    """

    name: ClassVar[str]

    def __init__(self, dtype: str, threads: int) -> None:
        self.dtype = DTYPES[dtype]
        self.threads = threads

    def prepare(self, tensors: Tensors) -> Any:
        """What `pack` takes, made anew for each run."""
        return tensors

    @abstractmethod
    def pack(self, prepared: Any) -> Any:
        """Compress a model in memory."""

    def write(self, packed: Any, path: Path) -> None:
        """Put what `pack` gave into a file."""
        path.write_bytes(packed)

    def pack_file(self, source: Path, path: Path) -> None:
        """From a safetensors file to a packed file."""
        self.write(self.pack(self.prepare(safetensors.torch.load_file(source))), path)

    def open(self, path: Path) -> Any:
        """What `load` takes, again and again."""
        return path

    def stored_nbytes(self, path: Path) -> int:
        """Bytes that the model takes when packed."""
        return path.stat().st_size

    @abstractmethod
    def load(self, opened: Any) -> object:
        """Decompress the whole model."""

    def tensors(self, opened: Any) -> Tensors:
        """What `load` decodes, as tensors by name."""
        loaded = self.load(opened)
        if not isinstance(loaded, dict):
            raise TypeError(f"{self.name} loads no tensors by name")
        return loaded


class Cmpk(Contender):
    """The file is opened, checked and decoded in each load; a pack makes every digest."""

    recipe: ClassVar[str]

    def pack(self, prepared: Tensors) -> MemorySink:
        """Pieces of a file in memory, as other compressors of tensors give one piece for each."""
        sink = MemorySink()
        cmpk.pack(prepared, sink, recipe=self.recipe, jobs=self.threads)
        return sink

    def write(self, packed: MemorySink, path: Path) -> None:
        """See `Contender.write`."""
        path.write_bytes(packed.getvalue())

    def pack_file(self, source: Path, path: Path) -> None:
        """Hashes the source and syncs the file to disk as well."""
        cmpk.pack(source, path, recipe=self.recipe, jobs=self.threads, force=True)

    def load(self, opened: Path) -> Tensors:
        """See `Contender.load`."""
        return cmpk.torch.load_file(opened, jobs=self.threads)


class CmpkLossless(Cmpk):
    """The recipe that decodes fastest."""

    name = "cmpk lossless"
    recipe = "lossless"


class CmpkLosslessMax(Cmpk):
    """The recipe with the best ratio."""

    name = "cmpk lossless-max"
    recipe = "lossless-max"


class Safetensors(Contender):
    """Uncompressed. Each tensor is copied: one that is only mapped has not been read yet."""

    name = "safetensors"

    def pack(self, prepared: Tensors) -> bytes:
        """See `Contender.pack`."""
        return safetensors.torch.save(dict(prepared))

    def load(self, opened: Path) -> Tensors:
        """See `Contender.load`."""
        return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(opened).items()}


class Zstd(Contender):
    """A safetensors file, compressed as a whole; a frame is decompressed by one thread only."""

    name = "zstd -3"

    def prepare(self, tensors: Tensors) -> bytes:
        """See `Contender.prepare`."""
        return safetensors.torch.save(dict(tensors))

    def pack(self, prepared: bytes) -> bytes:
        """See `Contender.pack`."""
        threads = self.threads if self.threads > 1 else 0
        return zstandard.ZstdCompressor(level=3, threads=threads).compress(prepared)

    def pack_file(self, source: Path, path: Path) -> None:
        """See `Contender.pack_file`."""
        path.write_bytes(self.pack(source.read_bytes()))

    def load(self, opened: Path) -> Tensors:
        """See `Contender.load`."""
        return safetensors.torch.load(zstandard.ZstdDecompressor().decompress(opened.read_bytes()))


class Packed(NamedTuple):
    """A tensor in memory, compressed unless it is of integers."""

    dtype: torch.dtype
    shape: torch.Size
    data: Any


class InMemory(Contender):
    """A tool that compresses buffers, not files: every tensor is handed to it by itself."""

    @abstractmethod
    def input_of(self, tensor: torch.Tensor) -> Any:
        """A tensor of floats in the form that the tool takes."""

    @abstractmethod
    def compress(self, data: Any) -> Any:
        """Compress one tensor."""

    @abstractmethod
    def decompress(self, packed: Packed) -> Any:
        """Undo `compress`."""

    @abstractmethod
    def output_of(self, data: Any) -> torch.Tensor:
        """What `decompress` gave, as a tensor."""

    def prepare(self, tensors: Tensors) -> dict[str, tuple[torch.Tensor, Any]]:
        """See `Contender.prepare`."""
        return {
            name: (tensor, self.input_of(tensor) if tensor.is_floating_point() else None)
            for name, tensor in tensors.items()
        }

    def pack(self, prepared: dict[str, tuple[torch.Tensor, Any]]) -> dict[str, Packed]:
        """See `Contender.pack`."""
        return {
            name: Packed(tensor.dtype, tensor.shape, tensor if data is None else self.compress(data))
            for name, (tensor, data) in prepared.items()
        }

    def write(self, packed: dict[str, Packed], path: Path) -> None:
        """See `Contender.write`."""
        path.write_bytes(pickle.dumps(packed))

    def open(self, path: Path) -> dict[str, Packed]:
        """See `Contender.open`."""
        opened: dict[str, Packed] = pickle.loads(path.read_bytes())
        return opened

    def stored_nbytes(self, path: Path) -> int:
        """The compressed buffers alone."""
        return sum(_nbytes(packed.data) for packed in self.open(path).values())

    def load(self, opened: dict[str, Packed]) -> object:
        """Nothing is kept: a buffer that is warm already serves the next tensor."""
        for packed in opened.values():
            if not isinstance(packed.data, torch.Tensor):
                self.decompress(packed)
        return None

    def tensors(self, opened: dict[str, Packed]) -> Tensors:
        """See `Contender.tensors`."""
        return {
            name: packed.data
            if isinstance(packed.data, torch.Tensor)
            else self.output_of(self.decompress(packed)).view(packed.dtype).reshape(packed.shape)
            for name, packed in opened.items()
        }


class ZipnnTensors(InMemory):
    """Buffers of bytes, tensor by tensor."""

    name = "zipnn, tensors"
    input_format: ClassVar[str] = "byte"

    def __init__(self, dtype: str, threads: int) -> None:
        super().__init__(dtype, threads)
        self._zipnn: Any = importlib.import_module("zipnn").ZipNN(
            bytearray_dtype=self.dtype, input_format=self.input_format, threads=threads
        )

    def input_of(self, tensor: torch.Tensor) -> Any:
        """A copy: zipnn reorders the bits of what it compresses in place, bytes objects included."""
        return bytearray(_as_bytes(tensor).numpy().data)

    def compress(self, data: Any) -> Any:
        """See `InMemory.compress`."""
        return self._zipnn.compress(data)

    def decompress(self, packed: Packed) -> Any:
        """See `InMemory.decompress`."""
        return self._zipnn.decompress(packed.data)

    def output_of(self, data: Any) -> torch.Tensor:
        """See `InMemory.output_of`."""
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)


class ZipnnTorch(ZipnnTensors):
    """Torch tensors, as zipnn's own interface takes and gives them."""

    name = "zipnn, torch"
    input_format = "torch"

    def input_of(self, tensor: torch.Tensor) -> Any:
        """See `ZipnnTensors.input_of`."""
        return tensor.clone()

    def output_of(self, data: torch.Tensor) -> torch.Tensor:
        """See `InMemory.output_of`."""
        return _as_bytes(data)


class ZipnnWhole(ZipnnTensors):
    """All floats of the model in one buffer."""

    name = "zipnn, whole"
    _WHOLE = ""

    def prepare(self, tensors: Tensors) -> dict[str, tuple[torch.Tensor, Any]]:
        """See `Contender.prepare`."""
        floats = [_as_bytes(tensor) for tensor in tensors.values() if tensor.is_floating_point()]
        whole = torch.cat(floats)
        rest = {name: (tensor, None) for name, tensor in tensors.items()}
        return {**rest, self._WHOLE: (whole, self.input_of(whole))}

    def pack(self, prepared: dict[str, tuple[torch.Tensor, Any]]) -> dict[str, Packed]:
        """See `Contender.pack`."""
        whole, data = prepared[self._WHOLE]
        packed = {}
        for name, (tensor, _) in prepared.items():
            # What the buffer holds is listed without its values.
            kept = tensor.new_empty(0) if tensor.is_floating_point() else tensor
            packed[name] = Packed(tensor.dtype, tensor.shape, kept)
        return packed | {self._WHOLE: Packed(whole.dtype, whole.shape, self.compress(data))}

    def tensors(self, opened: dict[str, Packed]) -> Tensors:
        """See `Contender.tensors`."""
        whole = self.output_of(self.decompress(opened[self._WHOLE]))
        tensors = {}
        for name, packed in opened.items():
            if packed.dtype.is_floating_point:
                nbytes = packed.shape.numel() * packed.dtype.itemsize
                tensors[name] = whole[:nbytes].clone().view(packed.dtype).reshape(packed.shape)
                whole = whole[nbytes:]
            elif name != self._WHOLE:
                tensors[name] = packed.data
        return tensors


class Pcodec(InMemory):
    """Tensor by tensor; bf16, which it does not know, as 16-bit integers."""

    name = "pcodec -8"

    def __init__(self, dtype: str, threads: int) -> None:
        super().__init__(dtype, threads)
        pcodec: Any = importlib.import_module("pcodec")
        self._pcodec: Any = pcodec.standalone
        # Weights in a row have no differences to code: trying costs time and changes no size.
        self._config = pcodec.ChunkConfig(compression_level=8, delta_spec=pcodec.DeltaSpec.no_op())
        self._elements = np.dtype("u2" if self.dtype == "bfloat16" else self.dtype)

    def input_of(self, tensor: torch.Tensor) -> Any:
        """See `InMemory.input_of`."""
        return _as_bytes(tensor).numpy().view(self._elements)

    def compress(self, data: Any) -> Any:
        """See `InMemory.compress`."""
        return self._pcodec.simple_compress(data, self._config)

    def decompress(self, packed: Packed) -> Any:
        """See `InMemory.decompress`."""
        out = np.empty(packed.shape.numel(), self._elements)
        self._pcodec.simple_decompress_into(packed.data, out)
        return out

    def output_of(self, data: Any) -> torch.Tensor:
        """See `InMemory.output_of`."""
        return torch.from_numpy(data)


CONTENDERS: dict[str, type[Contender]] = {
    contender.name: contender
    for contender in (
        CmpkLossless,
        CmpkLosslessMax,
        Safetensors,
        Zstd,
        ZipnnTensors,
        ZipnnTorch,
        ZipnnWhole,
        Pcodec,
    )
}


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _nbytes(data: Any) -> int:
    return int(data.nbytes) if isinstance(data, torch.Tensor) else len(data)

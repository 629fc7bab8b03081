"""What an importer is: it reads a model in some form, tensor by tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmpk.dtypes import TensorSpec
from cmpk.errors import FormatError, SourceError
from cmpk.format.layout import MAX_TENSORS
from cmpk.format.manifest import Segment, check_tensor
from cmpk.kernels.interface import U8

__all__ = ["Importer", "ModelSource", "SourceFile", "SourceTensor", "storable"]


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor that can be read.

    Attributes
    ----------
    name : str
    spec : TensorSpec
    read : function
        Gives the bytes, uint8, shape (spec.nbytes,); called once, in the order of the tensors.
    tied_to : str
        The earlier tensor that it is, under another name; empty if it is its own.
    shared : bool
        Whether later ones will be tied to it. Such a tensor is stored with bytes of its own, even if
        an earlier one has the same: only then can it be the target of an alias.
    """

    name: str
    spec: TensorSpec
    read: Callable[[], U8]
    tied_to: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be restored byte for byte.

    Attributes
    ----------
    path : str
        Relative, divided by ``/``.
    segments : list of Segment
        What it consists of; see spec/container.md, section 3.3.
    literal : bytes-like
        The literal bytes, one after another.
    sha256 : function
        Gives the SHA-256 of the whole file, in hexadecimal; called if it is stored, before the source is
        closed.
    takes_other_values : bool
        Whether it is still a file of its form when its tensors have other values. Where lossy passes
        change one that is not, it is left out.
    """

    path: str
    segments: list[Segment]
    literal: U8
    sha256: Callable[[], str]
    takes_other_values: bool = True


class ModelSource(ABC):
    """A model that was opened for packing.

    Attributes
    ----------
    metadata : dict of str to str
        The user's own.
    nbytes : int
        Bytes that will be read in all, for progress.
    notes : list of str
        What a user should know about how it was taken, a line each.
    expects_digests : bool
        Whether the digests of files are likely to be asked for. May be cleared before tensors are taken:
        a source that would hash a file on the way then does so when it is asked.
    """

    metadata: dict[str, str]
    nbytes: int
    notes: list[str]
    expects_digests: bool = True

    @abstractmethod
    def tensors(self) -> Iterator[SourceTensor]:
        """The tensors, in the order in which they are to be stored; read each before taking the next."""

    def files(self) -> Iterator[SourceFile]:
        """The files to restore; asked for after the last tensor has been read."""
        return iter(())

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Let go of what is open."""


def storable(source: ModelSource) -> Iterator[SourceTensor]:
    """The tensors of a source, each checked before it is read.

    Raises
    ------
    SourceError
        If there is one that no reader would take.
    """
    names: set[str] = set()
    shared: dict[str, TensorSpec] = {}
    for tensor in source.tensors():
        try:
            tensor.name.encode()
            check_tensor(tensor.name, *tensor.spec)
        except (FormatError, UnicodeEncodeError) as error:
            raise SourceError(f"the model can't be packed: {error}") from None
        if tensor.name in names:
            raise SourceError(f"the model has two tensors named {tensor.name!r}")
        names.add(tensor.name)
        if len(names) > MAX_TENSORS:
            raise SourceError(f"the model has more than {MAX_TENSORS} tensors")
        if tensor.tied_to and shared.get(tensor.tied_to) != tensor.spec:
            raise SourceError(
                f"{tensor.name!r} is tied to {tensor.tied_to!r}, which is no earlier tensor to be shared"
            )
        if tensor.shared:
            shared[tensor.name] = tensor.spec
        yield tensor


class Importer(ABC):
    """Opens one form of model for packing.

    Attributes
    ----------
    id : str
    summary : str
        What it takes, for ``cmpk plugins``.
    """

    id: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def accepts(self, path: Path) -> bool:
        """Whether this is a file or directory of its form, by name and first bytes."""

    @abstractmethod
    def open(self, path: Path) -> ModelSource:
        """Open it.

        Raises
        ------
        SourceError
            If it is damaged or holds what can't be packed.
        """

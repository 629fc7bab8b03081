"""Bytes and manifest of a ``.cmpk`` file (spec/container.md); knows no tensors."""

from cmpk.format.manifest import FileEntry, Manifest, Node, Segment, TensorEntry
from cmpk.format.reader import ContainerReader
from cmpk.format.writer import ContainerWriter, atomic_file

__all__ = [
    "ContainerReader",
    "ContainerWriter",
    "FileEntry",
    "Manifest",
    "Node",
    "Segment",
    "TensorEntry",
    "atomic_file",
]

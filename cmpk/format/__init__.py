"""Bytes and manifest of a ``.cmpk`` file (spec/container.md); knows no tensors."""

from cmpk.format.inputs import InputRanges
from cmpk.format.manifest import FileEntry, Manifest, Node, Segment, TensorEntry
from cmpk.format.quality import Quality, QualitySummary
from cmpk.format.reader import ContainerReader
from cmpk.format.writer import ByteSink, ContainerWriter, MemorySink, atomic_file, is_unfinished

__all__ = [
    "ByteSink",
    "ContainerReader",
    "ContainerWriter",
    "FileEntry",
    "InputRanges",
    "Manifest",
    "MemorySink",
    "Node",
    "Quality",
    "QualitySummary",
    "Segment",
    "TensorEntry",
    "atomic_file",
    "is_unfinished",
]

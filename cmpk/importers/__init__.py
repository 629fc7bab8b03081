"""Importers: a model in some form, read tensor by tensor. Used at pack time only."""

from cmpk.importers.base import Importer, ModelSource, SourceFile, SourceTensor
from cmpk.importers.directory import DirectoryImporter
from cmpk.importers.safetensors import SafetensorsImporter
from cmpk.importers.state_dict import StateDictSource
from cmpk.importers.torch_checkpoint import TorchCheckpointImporter

__all__ = [
    "DirectoryImporter",
    "Importer",
    "ModelSource",
    "SafetensorsImporter",
    "SourceFile",
    "SourceTensor",
    "StateDictSource",
    "TorchCheckpointImporter",
]

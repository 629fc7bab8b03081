"""The names that apps and plugins may rely on: a change here is one for the changelog."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "cmpk": """
        Archive Calibration CmpkError CorruptStreamError DestinationError DeviceError FormatError
        PackReport PassError PluginError RecipeError SourceError UnknownIdError __version__ calibrate
        load_calibration numpy open pack show_config torch unpack
    """,
    "cmpk.codecs": "Bitpack Codec Huffman Rans Raw Zstd",
    "cmpk.dtypes": "DTYPES DType TensorSpec dtype_of from_torch to_torch",
    "cmpk.encodings": """
        Affine Alias Bitmask Branch Cast Codebook Decoder Encoded Encoding FloatSplit GapIndex Leaf Narrow
        Part Product RowGroups Stored
    """,
    "cmpk.errors": """
        CmpkError CorruptStreamError DestinationError DeviceError FormatError PassError PluginError
        RecipeError SourceError UnknownIdError blame
    """,
    "cmpk.hookspecs": """
        PROJECT cmpk_codecs cmpk_commands cmpk_encodings cmpk_importers cmpk_kernels cmpk_passes
        hookimpl hookspec
    """,
    "cmpk.importers": """
        DirectoryImporter Importer ModelSource SafetensorsImporter SourceFile SourceTensor
        StateDictSource TorchCheckpointImporter
    """,
    "cmpk.kernels": "BUILT_IN active active_name built_in register requested",
    "cmpk.kernels.interface": """
        Buffer CodeJob FLOAT_LAYOUTS FUSED_CODECS FloatJob Job KernelBackend LookupJob PRODUCT_DTYPES
        Source U8
    """,
    "cmpk.nn": "CompressedEmbedding CompressedLayer IntegerLinear RESIDENT close load",
    "cmpk.numpy": "load load_file read_array save save_file",
    "cmpk.passes": """
        Binarize Cast Factorize FixedPoint MergeRows MergeTensors NormalFloat Pass Planned
        Prune Quantize RoundInt Share Split SplitFloats Statistics Ternarize
    """,
    "cmpk.recipe": "MODULES PassUse Recipe Rule builtin_names builtin_text load_recipe",
    "cmpk.registry": """
        Origin PluginProblem Registered Registry builtin_registry codec_of find install_kernels
        registry
    """,
    "cmpk.testing": "byte_arrays check_codec check_encoding check_kernels damaged tensor_parts tensor_specs",
    "cmpk.torch": "TensorSlice load load_file load_model load_sharded safe_open save save_file save_model",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_of_a_module_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == PUBLIC[module].split()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_there(module: str) -> None:
    imported = importlib.import_module(module)
    assert all(hasattr(imported, name) for name in imported.__all__)

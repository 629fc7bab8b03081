"""cmpk packs trained models for distribution: small, checked, bit-exact, quick to load.

    import cmpk

    cmpk.pack("model/", "model.cmpk")               # a directory, a file, or a state dict
    tensors = cmpk.torch.load_file("model.cmpk")    # as safetensors.torch.load_file
    with cmpk.open("model.cmpk") as archive:        # inspect without decoding
        print(archive.keys())

Importing cmpk imports neither torch nor anything that only packing needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cmpk.errors import (
    CmpkError,
    CorruptStreamError,
    DestinationError,
    DeviceError,
    FormatError,
    PassError,
    PluginError,
    RecipeError,
    SourceError,
    UnknownIdError,
)
from cmpk.version import __version__

if TYPE_CHECKING:
    from cmpk import numpy, torch
    from cmpk.archive import Archive
    from cmpk.archive import open_archive as open
    from cmpk.calibration import Calibration, calibrate, load_calibration
    from cmpk.config import show_config
    from cmpk.packing import PackReport, pack
    from cmpk.unpacking import unpack

__all__ = [
    "Archive",
    "Calibration",
    "CmpkError",
    "CorruptStreamError",
    "DestinationError",
    "DeviceError",
    "FormatError",
    "PackReport",
    "PassError",
    "PluginError",
    "RecipeError",
    "SourceError",
    "UnknownIdError",
    "__version__",
    "calibrate",
    "load_calibration",
    "numpy",
    "open",
    "pack",
    "show_config",
    "torch",
    "unpack",
]

_LAZY = {
    "Archive": ("cmpk.archive", "Archive"),
    "Calibration": ("cmpk.calibration", "Calibration"),
    "PackReport": ("cmpk.packing", "PackReport"),
    "calibrate": ("cmpk.calibration", "calibrate"),
    "load_calibration": ("cmpk.calibration", "load_calibration"),
    "numpy": ("cmpk.numpy", ""),
    "open": ("cmpk.archive", "open_archive"),
    "pack": ("cmpk.packing", "pack"),
    "show_config": ("cmpk.config", "show_config"),
    "torch": ("cmpk.torch", ""),
    "unpack": ("cmpk.unpacking", "unpack"),
}
"""Public names that are imported when they are first used: module, and attribute unless it is the module."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'cmpk' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""What this installation can do."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from cmpk import kernels
from cmpk.device import about as about_cuda
from cmpk.indexing import default_threads
from cmpk.registry import install_kernels
from cmpk.version import __version__

__all__ = ["config", "show_config"]


def config() -> dict[str, str]:
    """Version, kernels, threads and the versions of what cmpk builds on, as text by name."""
    install_kernels()
    name = kernels.active_name()
    about = {
        "native": "native (C++)",
        "reference": "reference (NumPy): correct, but many times slower; "
        "install a C++ compiler and reinstall cmpk to get the native ones",
    }
    found = {
        "cmpk": __version__,
        "kernels": about.get(name, f"{name} (of a plugin)"),
        "threads": str(default_threads()),
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
    }
    for package in ("numpy", "torch", "zstandard", "triton"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def show_config() -> None:
    """Print `config`, a line each, and how tensors get onto CUDA devices."""
    for name, value in {**config(), "cuda": about_cuda()}.items():
        print(f"{name:<10} {value}")

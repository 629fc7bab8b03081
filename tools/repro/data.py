"""Fashion-MNIST from Debian's package, MNIST from where the user points to: in memory, as tensors.

The four files are looked for in the folder that ``CMPK_MNIST`` names, then where Debian's package
``dataset-fashion-mnist`` puts them, then in ``.repro/data``, where a package that apt downloads is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["WORK", "DataError", "Images", "load_images"]

WORK: Final = Path(__file__).resolve().parents[2] / ".repro"
"""Where all that the reproductions fetch and make is kept."""

_PACKAGE: Final = "dataset-fashion-mnist"
_INSTALLED: Final = Path("/usr/share/datasets/fashion-mnist")
_FILES: Final = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
"""SHA-256 of Fashion-MNIST's files (Xiao et al. 2017)."""

_SHAPES: Final = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}


class DataError(Exception):
    """The images are not to be had, or are not those that they should be."""


class Images(NamedTuple):
    """A data set of grey images of ten classes.

    Attributes
    ----------
    name : str
    train, test : float32 tensor, shape (60000, 1, 28, 28) and (10000, 1, 28, 28)
        In units of the training images' standard deviation from their mean.
    train_labels, test_labels : int64 tensor, shape (60000,) and (10000,)
    """

    name: str
    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def load_images() -> Images:
    """The images: MNIST's if ``CMPK_MNIST`` names a folder with them, else Fashion-MNIST's.

    Raises
    ------
    DataError
        If they can't be had.
    """
    pointed = os.environ.get("CMPK_MNIST")
    folder = Path(pointed) if pointed else _fashion_mnist()
    arrays = [_read(folder, name) for name in _SHAPES]
    train, test = (array.astype(np.float32)[:, None] / 255 for array in (arrays[0], arrays[2]))
    mean, deviation = float(train.mean(dtype=np.float64)), float(train.std(dtype=np.float64))
    images = [torch.from_numpy((array - mean) / deviation) for array in (train, test)]
    labels = [torch.from_numpy(array.astype(np.int64)) for array in (arrays[1], arrays[3])]
    return Images("mnist" if pointed else "fashion-mnist", images[0], labels[0], images[1], labels[1])


def _read(folder: Path, name: str) -> NDArray[np.uint8]:
    """One file in the IDX format, compressed or not: a magic number, the dimensions, the bytes."""
    packed, plain = folder / f"{name}.gz", folder / name
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{packed}: {error}; name the folder with the four files in CMPK_MNIST") from error
    shape = _SHAPES[name]
    header = np.array([0x800 + len(shape), *shape], ">u4").tobytes()
    if not content.startswith(header) or len(content) != len(header) + int(np.prod(shape)):
        raise DataError(f"{folder / name}: not the {shape} bytes in IDX format that it should be")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _fashion_mnist() -> Path:
    for folder in (_INSTALLED, WORK / "data"):
        if all(_is_right(folder / name, digest) for name, digest in _FILES.items()):
            return folder
    _unpack(_downloaded(), WORK / "data")
    for name, digest in _FILES.items():
        if not _is_right(WORK / "data" / name, digest):
            raise DataError(f"{name} of Debian's package {_PACKAGE} has not the SHA-256 {digest}")
    return WORK / "data"


def _is_right(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _downloaded() -> bytes:
    """Debian's package, which apt downloads and checks; nothing is installed, no rights are needed."""
    if shutil.which("apt-get") is None:
        raise DataError(
            f"Fashion-MNIST comes from Debian's package {_PACKAGE}, and there is no apt-get here: "
            "name a folder with the four files of MNIST or Fashion-MNIST in CMPK_MNIST"
        )
    with tempfile.TemporaryDirectory() as folder:
        options = ["-qq", "-o", "APT::Sandbox::User=" + (os.environ.get("USER") or "root")]
        done = _apt([*options, "download", _PACKAGE], folder)
        if done.returncode:
            # No lists of packages, or old ones: fetch them, to a place of our own.
            for name in ("lists/partial", "cache/archives/partial"):
                (Path(folder) / name).mkdir(parents=True)
            options += ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
            options += ["-o", "Debug::NoLocking=1"]
            done = _apt([*options, "update"], folder)
            done = _apt([*options, "download", _PACKAGE], folder)
        found = list(Path(folder).glob("*.deb"))
        if done.returncode or not found:
            raise DataError(
                f"apt-get could not download {_PACKAGE}: {done.stderr.strip()[-500:]}; install the package, "
                "or name a folder with its four files in CMPK_MNIST"
            )
        return found[0].read_bytes()


def _apt(arguments: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def _unpack(package: bytes, folder: Path) -> None:
    """Write the four files of a package: an ar archive that holds a tar archive."""
    folder.mkdir(parents=True, exist_ok=True)
    for member, data in _members(package):
        if member != "data.tar.xz":
            continue
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(data))) as archive:
            for info in archive:
                name = Path(info.name).name
                file = archive.extractfile(info) if name in _FILES else None
                if file is not None:
                    (folder / name).write_bytes(file.read())


def _members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an ar archive: 60 bytes of header each, contents at even offsets."""
    if not package.startswith(b"!<arch>\n"):
        raise DataError(f"what apt-get downloaded as {_PACKAGE} is no Debian package")
    at = 8
    while at + 60 <= len(package):
        name = package[at : at + 16].decode("ascii", "replace").rstrip().rstrip("/")
        nbytes = int(package[at + 48 : at + 58])
        yield name, package[at + 60 : at + 60 + nbytes]
        at += 60 + nbytes + nbytes % 2

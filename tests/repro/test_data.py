"""Where the images of the reproductions come from."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tools.repro import data


def write_idx(path: Path, array: np.ndarray) -> None:
    header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


def test_images_come_from_where_the_user_points_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {name: (shape[0] // 100, *shape[1:]) for name, shape in data._SHAPES.items()}
    monkeypatch.setattr(data, "_SHAPES", shapes)
    for name, shape in shapes.items():
        write_idx(tmp_path / f"{name}.gz", np.resize(np.arange(10, dtype=np.uint8), shape))
    monkeypatch.setenv("CMPK_MNIST", str(tmp_path))
    images = data.load_images()
    assert images.name == "mnist"
    assert images.train.shape == (600, 1, 28, 28)
    assert abs(float(images.train.mean())) < 1e-3
    assert abs(float(images.train.std()) - 1) < 1e-3
    assert set(images.test_labels.tolist()) == set(range(10))


def test_files_of_another_shape_and_missing_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMPK_MNIST", str(tmp_path))
    with pytest.raises(data.DataError, match="name the folder"):
        data.load_images()
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((10, 28, 28), np.uint8))
    with pytest.raises(data.DataError, match=r"not the \(60000, 28, 28\) bytes"):
        data.load_images()


def test_a_package_is_an_archive_of_members_at_even_offsets() -> None:
    def member(name: str, content: bytes) -> bytes:
        return f"{name:<16}{'0':<32}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)

    package = b"!<arch>\n" + member("debian-binary", b"2.0") + member("data.tar.xz/", b"data")
    assert list(data._members(package)) == [("debian-binary", b"2.0"), ("data.tar.xz", b"data")]
    with pytest.raises(data.DataError, match="no Debian package"):
        list(data._members(b"<html>"))

"""Codec lz4 against the kit that cmpk has for plugins, its page, and a file that needs it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cmpk_lz4 import Lz4, codec

import cmpk
import cmpk.numpy
from cmpk.registry import registry
from cmpk.testing import check_codec

ROOT = Path(__file__).resolve().parent.parent
CHUNK = 1 << 18


def test_lz4_is_a_codec() -> None:
    check_codec(Lz4(), boundaries=[CHUNK])


def test_lz4_is_a_codec_at_its_highest_level() -> None:
    check_codec(Lz4(level=codec.MAX_LEVEL))


def test_a_level_that_lz4_does_not_have_is_refused() -> None:
    for level in (0, codec.MAX_LEVEL + 1):
        with pytest.raises(cmpk.RecipeError, match=f"lz4 level {level} is not within 1 to 12"):
            Lz4(level)


def test_a_range_needs_only_the_blocks_that_it_touches() -> None:
    data = np.resize(np.arange(251, dtype=np.uint8), 3 * CHUNK)
    stream = bytearray(Lz4().encode(data))
    stream[-20:] = b"\xff" * 20
    out = np.empty(2 * CHUNK, np.uint8)
    Lz4().decode_range(bytes(stream), len(data), 0, out)
    assert out.tobytes() == data[: 2 * CHUNK].tobytes()
    with pytest.raises(cmpk.CorruptStreamError, match="codec 'lz4': a block can't be decoded"):
        Lz4().decode_range(bytes(stream), len(data), 0, np.empty_like(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda stream: b"", "the chunk size is out of range"),
        (lambda stream: b"\x0f" + stream[1:], "the chunk size is out of range"),
        (lambda stream: b"\x19" + stream[1:], "the chunk size is out of range"),
        (lambda stream: stream[:4], "the stream ends within its table of blocks"),
        (lambda stream: stream[:-1], "the blocks do not fill the stream"),
        (lambda stream: stream + b"\0", "the blocks do not fill the stream"),
        (lambda stream: b"\x12\x25\0\0\0" + b"\x10a" * 18 + b"\0", "a block of 37 bytes for a chunk of 20"),
        (lambda stream: b"\x12\x06\0\0\0\x50abcde", "a block of 5 bytes where its chunk has 20"),
        (lambda stream: b"\x12\x06\0\0\0\xf0abcde", "a block can't be decoded"),
    ],
)
def test_each_rule_of_the_page_has_its_error(damage, message) -> None:  # type: ignore[no-untyped-def]
    stream = Lz4().encode(np.frombuffer(b"abc" * 6 + b"ab", np.uint8))
    with pytest.raises(cmpk.CorruptStreamError, match=f"codec 'lz4': {message}"):
        Lz4().check(damage(bytes(stream)), 20)


def test_the_example_of_the_page_decodes() -> None:
    page = (ROOT / "SPEC.md").read_text("utf-8")
    found = re.search(r"<!-- hex: codec lz4 -> ([0-9a-f ]+) -->\n```\n([0-9a-f \n]+)```", page)
    assert found is not None
    data, stream = map(bytes.fromhex, found.groups())
    out = np.empty(len(data), np.uint8)
    Lz4().decode_range(stream, len(data), 0, out)
    assert out.tobytes() == data


def test_the_constants_of_the_page_are_those_of_the_code() -> None:
    page = (ROOT / "SPEC.md").read_text("utf-8")
    constants = dict(re.findall(r"^\| `lz4\.([A-Z_0-9]+)` \| (\d+) \|$", page, re.MULTILINE))
    assert {name: int(value) for name, value in constants.items()} == {
        name: getattr(codec, name) for name in ("MIN_CHUNK_LOG2", "MAX_CHUNK_LOG2", "MAX_EXPANSION")
    }


def test_a_recipe_file_names_lz4_and_the_file_names_the_package(tmp_path: Path) -> None:
    tensors = {
        "weight": np.random.default_rng(1).normal(0, 0.02, (100, 70)).astype(np.float32),
        "mask": np.tile(np.arange(200, dtype=np.uint8), (300, 1)),
    }
    cmpk.numpy.save_file(tensors, tmp_path / "model.cmpk", recipe=ROOT / "lossless-lz4.toml")
    with cmpk.open(tmp_path / "model.cmpk") as archive:
        archive.verify(deep=True)
        assert archive.entry("mask").data.codec == "lz4"
        assert archive.manifest.providers == {"lz4": str(registry().codecs["lz4"].origin)}
    loaded = cmpk.numpy.load_file(tmp_path / "model.cmpk")
    assert {name: tensor.tobytes() for name, tensor in loaded.items()} == {
        name: tensor.tobytes() for name, tensor in tensors.items()
    }

"""The pages stay in step with the code: ids, constants, tables and examples."""

from __future__ import annotations

import importlib
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Branch, Decoder, Leaf, Stored, allocate
from cmpk.format import FileEntry, InputRanges, Manifest, Node, Quality, Segment, TensorEntry, layout
from cmpk.registry import builtin_registry

SPEC = Path(__file__).resolve().parents[2] / "spec"
PAGES = sorted(SPEC.rglob("*.md"))
CODEC_PAGES = [page for page in PAGES if page.parent.name == "codecs"]
PLAIN = "plain"
"""The encoding of leaves: it has a page and no implementation."""


class Example(NamedTuple):
    """A hex example of a page."""

    words: list[str]
    decoded: bytes
    block: str


def examples(kind: str) -> list[Example]:
    """All examples ``<!-- hex: KIND WORDS -> BYTES -->`` and the blocks that follow them."""
    found = []
    for page in PAGES:
        for head, block in re.findall(r"<!-- hex: (.+?) -->\n```\n(.*?)```", page.read_text(), re.DOTALL):
            words, _, decoded = head.partition(" -> ")
            if words.split()[0] == kind:
                found.append(Example(words.split()[1:], bytes.fromhex(decoded), block))
    return found


def constants(page: Path) -> dict[str, int]:
    """The table with the head ``| name | value |`` of a page."""
    tables = re.findall(r"\| name \| value \|\n\|---\|---\|\n((?:\|.*\|\n)+)", page.read_text())
    rows = [row for table in tables for row in re.findall(r"\| `([\w.]+)` \| (\d+) \|\n", table)]
    assert len(rows) == sum(table.count("\n") for table in tables)
    return {name: int(value) for name, value in rows}


def members(section: str) -> list[str]:
    """First column of the tables of members in a section of container.md."""
    text = (SPEC / "container.md").read_text().partition(f"\n{section}")[2].partition("\n#")[0]
    tables = re.findall(r"\| member \|.*\n\|[-|]+\n((?:\|.*\n)+)", text)
    return re.findall(r"^\| `(\w+)` \|", tables[-1], re.MULTILINE)


@pytest.mark.parametrize("kind", ["codecs", "encodings"])
def test_every_id_has_a_page_and_every_page_an_id(decode: ModuleType, kind: str) -> None:
    pages = {page.stem for page in (SPEC / kind).glob("*.md")} - {PLAIN}
    registered = set(getattr(builtin_registry(), kind))
    assert registered == pages
    # An alias is not decoded: the decoder looks its target up.
    assert set(getattr(decode, kind.upper())) | {"alias"} & pages == pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_constants_are_those_of_the_code(decode: ModuleType, page: Path) -> None:
    for name, value in constants(page).items():
        owner, _, attribute = name.rpartition(".")
        if not owner:
            assert getattr(layout, attribute) == value
            assert getattr(decode, attribute) == value
            continue
        assert owner == page.stem
        assert getattr(importlib.import_module(f"cmpk.{page.parent.name}.{owner}"), attribute) == value
        if attribute == "MAX_EXPANSION":
            assert decode.CODECS[owner].max_expansion == value
            assert builtin_registry().codecs[owner].item.max_expansion == value


@pytest.mark.parametrize("page", CODEC_PAGES, ids=lambda page: page.stem)
def test_a_codec_states_its_expansion(page: Path) -> None:
    assert f"{page.stem}.MAX_EXPANSION" in constants(page)


def test_element_types_are_those_of_the_code(decode: ModuleType) -> None:
    text = (SPEC / "container.md").read_text()
    row = r"^\| `(\w+)` \| (\d+) \| ?(\d*) \| ?(\d*) \| ?(\d*) \|$"
    rows = re.findall(row, text, re.MULTILINE)
    table = {name: [int(cell or 0) for cell in cells] for name, *cells in rows}
    code = {
        name: [dtype.nbits, int(dtype.signed_float), dtype.exponent_nbits, dtype.mantissa_nbits]
        for name, dtype in DTYPES.items()
    }
    assert list(table.items()) == list(code.items())
    assert {name: [bits, e, m] for name, (bits, _, e, m) in table.items()} == {
        name: list(dtype) for name, dtype in decode.DTYPES.items()
    }


@pytest.mark.parametrize(
    ("section", "struct", "table"),
    [
        ("## 3. ", Manifest, "MANIFEST"),
        ("### 3.1 ", TensorEntry, "TENSOR"),
        ("#### 3.1.1 ", Quality, "QUALITY"),
        ("#### 3.1.2 ", InputRanges, "INPUT"),
        ("### 3.2 ", Node, "NODE"),
        ("### 3.3 ", Segment, "SEGMENT"),
    ],
)
def test_members_are_those_of_the_code_in_their_order(
    decode: ModuleType, section: str, struct: type[msgspec.Struct], table: str
) -> None:
    assert members(section) == list(struct.__struct_fields__)
    assert members(section) == list(getattr(decode, table))


def test_members_of_a_file_are_those_of_the_code_in_their_order(decode: ModuleType) -> None:
    text = (SPEC / "container.md").read_text().partition("\n### 3.3 ")[2].partition("A segment is")[0]
    names = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert names == list(FileEntry.__struct_fields__) == list(decode.FILE)


def test_every_codec_and_encoding_with_parts_has_an_example() -> None:
    assert {example.words[0] for example in examples("codec")} == set(builtin_registry().codecs)
    with_parts = set(builtin_registry().encodings) - {"alias"}
    assert {example.words[0] for example in examples("encoding")} == with_parts


@pytest.mark.parametrize("example", examples("codec"), ids=lambda example: example.words[0])
@pytest.mark.usefixtures("backend")
def test_codec_examples_decode(decode: ModuleType, example: Example) -> None:
    (codec_id,) = example.words
    stream = np.frombuffer(bytes.fromhex(example.block), np.uint8)
    n = len(example.decoded)
    assert decode.CODECS[codec_id].decode(stream, n).tobytes() == example.decoded
    codec = builtin_registry().codecs[codec_id].item
    codec.check(stream, n)
    out = np.empty(n, np.uint8)
    codec.decode_range(stream, n, 0, out)
    assert out.tobytes() == example.decoded


@pytest.mark.parametrize("example", examples("encoding"), ids=lambda example: example.words[0])
@pytest.mark.usefixtures("backend")
def test_encoding_examples_decode(decode: ModuleType, example: Example) -> None:
    encoding_id, dtype, dimensions, text = example.words
    shape = tuple(int(size) for size in dimensions.split(","))
    params = json.loads(text)
    parts = {}
    for line in example.block.splitlines():
        name, *digits = line.split()
        parts[name] = bytes.fromhex("".join(digits))

    theirs = decode.ENCODINGS[encoding_id]
    specs = theirs.parts(params, decode.Spec(dtype, shape))
    assert [spec.nbytes for spec in specs.values()] == [len(part) for part in parts.values()]
    assert list(specs) == list(parts)
    arrays = {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
    assert theirs.decode(params, decode.Spec(dtype, shape), arrays).tobytes() == example.decoded

    encoding = builtin_registry().encodings[encoding_id].item
    raw = builtin_registry().codecs["raw"].item
    ours = encoding.part_specs(TensorSpec(dtype, shape), params)
    assert [(name, spec.dtype, spec.shape) for name, spec in ours.items()] == [
        (name, spec.dtype, spec.shape) for name, spec in specs.items()
    ]
    # Offsets stand for the parts themselves here: `read` below finds them by number.
    leaves: dict[str, Stored] = {
        name: Leaf(Node(codec="raw", nbytes=len(parts[name])), offset, spec, raw)
        for offset, (name, spec) in enumerate(ours.items())
    }
    root = Branch(Node(encoding=encoding_id, params=params), TensorSpec(dtype, shape), encoding, leaves)
    decoder = Decoder(lambda leaf: memoryview(parts[list(parts)[leaf.offset]]))
    out = allocate(len(example.decoded))
    decoder.decode_into(root, 0, math.prod(shape), out)
    decoder.flush()
    assert out.tobytes() == example.decoded


def test_the_example_of_an_archive_is_the_vector(decode: ModuleType) -> None:
    (block,) = (example.block for example in examples("container-example"))
    data = b""
    for line in block.splitlines():
        offset, digits = line[:4], line[6:53]
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(digits)
    assert data == (SPEC / "vectors" / "valid" / "container-example.cmpk").read_bytes()
    assert f", {len(data)} bytes in all" in (SPEC / "container.md").read_text()
    assert decode.Archive(data).tensor("a") == b"\1\2\3"
    assert Archive(data).read("a").tobytes() == b"\1\2\3"

"""Damage: any byte changed, any cut, with digests or with digests made to match.

The small archive here holds every codec and encoding. Accidental damage must never give a wrong tensor;
damage by somebody who computes the digests as well may give other tensors, but nothing else than tensors
or a CmpkError.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import cmpk.torch
from cmpk import kernels
from cmpk.archive import Archive, leaves_of
from cmpk.codecs import Bitpack, Codec, Huffman, Rans, Zstd
from cmpk.dtypes import TensorSpec
from cmpk.encodings import Affine, Bitmask, Cast, Codebook, FloatSplit, GapIndex, Narrow, Product, RowGroups
from cmpk.encodings.base import Leaf
from cmpk.errors import CmpkError, FormatError
from cmpk.registry import builtin_registry
from cmpk.unpacking import unpack
from tests.builders import PREAMBLE, Node, archive, branch, branch_of, file, leaf, sealed, tensor

CHANGES: list[Callable[[int], int]] = [
    lambda byte: byte ^ 0x01,
    lambda byte: byte ^ 0x80,
    lambda byte: 0x00,
    lambda byte: 0xFF,
    lambda byte: (byte + 1) % 256,
]

STRIDE = 1 if kernels.active_name() == "native" else 17
"""The reference kernels take their time: with them only some of the bytes are tried."""

Array = np.ndarray[Any, Any]


def coded(codec: Codec, data: Array) -> Node:
    return leaf(bytes(memoryview(codec.encode(data))), codec.id)  # type: ignore[arg-type]


def split(data: Array, dtype: str, mantissa_bits: int = 0, base: int = 0, codec: Codec | None = None) -> Node:
    spec = TensorSpec(dtype, (len(data) // {"F64": 8, "F32": 4}.get(dtype, 2),))
    return branch_of("float_split", FloatSplit().encode(data, spec, mantissa_bits, base), codec)


def narrowed(data: Array, dtype: str, narrower: str, inner: Callable[[Array], Node] | None = None) -> Node:
    spec = TensorSpec(dtype, (len(data) // {"F64": 8, "F32": 4}[dtype],))
    values = Narrow().encode(data, spec, narrower).parts["values"].data
    return branch("narrow", {"dtype": narrower}, values=inner(values) if inner else leaf(values.tobytes()))


def plain_tensors() -> Iterator[Node]:
    """One tensor for each codec; those with chunks have two, and sync points."""
    rng = np.random.default_rng(0)
    skewed = np.minimum(rng.geometric(0.5, 200) - 1, 9).astype(np.uint8)
    sparse = np.where(rng.random(5000) < 0.01, 3, 0).astype(np.uint8)
    lengths = kernels.active().code_lengths(kernels.active().byte_histogram(sparse), 12)
    frequencies = np.zeros(256, np.uint16)
    frequencies[[0, 3]] = 4055, 41
    chunked = {
        "huffman": kernels.active().huffman_encode(sparse, lengths, 12),
        "rans": kernels.active().rans_encode(sparse, frequencies, 12),
    }
    steps = np.arange(40, dtype=np.int32).view(np.uint8)
    few = skewed.view(np.int16)
    yield tensor("raw", "F16", [12], leaf(skewed[:24].tobytes()), skewed[:24].tobytes())
    yield tensor("zstd", "I32", [40], coded(Zstd(), steps), steps.tobytes())
    yield tensor("bitpack", "U8", [200], coded(Bitpack(), skewed), skewed.tobytes())
    yield tensor("huffman", "U8", [200], coded(Huffman(), skewed), skewed.tobytes())
    yield tensor("rans", "I16", [100], coded(Rans(), skewed), few.tobytes())
    for name, stream in chunked.items():
        yield tensor(f"{name}.chunks", "U8", [5000], leaf(bytes(memoryview(stream)), name), sparse.tobytes())
    yield tensor("empty", "F32", [0, 3], leaf(b""), b"")


def encoded_tensors() -> Iterator[Node]:
    """At least one tensor for each encoding, nested as the packer nests them."""
    rng = np.random.default_rng(1)
    wide = (rng.standard_normal(96) * 0.02).astype(np.float32)
    brain = wide.view(np.uint32) & 0xFFFF0000
    words = (brain >> 16).astype(np.uint16).view(np.uint8)
    octets = brain.view(np.uint8)
    far = wide.astype(np.float16)
    far[[3, 50]] = 6e4, 6e-8
    halves = far.view(np.uint8)
    doubles = wide.astype(np.float64).view(np.uint8)
    values = rng.choice(np.array([0x8000, 0x0001, 0x7E01], np.uint16), 60).view(np.uint8)

    yield tensor("split", "BF16", [96], split(words, "BF16", codec=Huffman()), words.tobytes())
    yield tensor("exceptions", "F16", [8, 12], split(halves, "F16", 4, 200, Rans()), halves.tobytes())
    yield tensor("narrow", "F32", [96], narrowed(octets, "F32", "BF16"), octets.tobytes())
    inner = functools.partial(split, dtype="F32", codec=Bitpack())
    yield tensor("narrow.split", "F64", [4, 24], narrowed(doubles, "F64", "F32", inner), doubles.tobytes())
    book = Codebook().encode(values, TensorSpec("F16", (60,)))
    assert book is not None
    yield tensor("codebook", "F16", [60], branch_of("codebook", book, Bitpack()), values.tobytes())

    # Scales of one: the codes are the numbers, and their last one does not fit a byte.
    numbers = np.append(np.arange(59, dtype=np.float32) - 9, np.float32(1000))
    scale, zero = np.ones(12, np.float32), np.full(12, 3, np.int32)
    grid = Affine().encode(
        numbers.astype(np.int32) + 3,
        TensorSpec("F32", (6, 10)),
        scale,
        zero,
        group_size=5,
        scale_dtype="BF16",
    )
    yield tensor("affine", "F32", [6, 10], branch_of("affine", grid, Huffman()), numbers.tobytes())

    pruned = np.where(rng.random(90) < 0.2, wide[:90], np.float32(0)).view(np.uint8)
    spec = TensorSpec("F32", (10, 9))
    mask = Bitmask().encode(pruned, spec, stride=9)
    yield tensor("bitmask", "F32", [10, 9], branch_of("bitmask", mask, Rans()), pruned.tobytes())
    gaps = GapIndex().encode(pruned, spec, max_gap=6)
    yield tensor("gap_index", "F32", [10, 9], branch_of("gap_index", gaps, Huffman()), pruned.tobytes())
    ones = np.array([0x38, 0xC0, 0x30, 0x00] * 6, np.uint8)
    cast = Cast().encode(ones, "F8_E4M3", TensorSpec("BF16", (4, 6)), np.ones(4, np.float32), axis=0)
    found = np.array([0x3F80, 0xC000, 0x3F00, 0x0000] * 6, "<u2")
    yield tensor("cast", "BF16", [4, 6], branch_of("cast", cast, Bitpack()), found.tobytes())

    left, right = np.arange(-4, 6, dtype=np.float16), np.arange(-3, 3, dtype=np.float16)
    matrices = Product().encode(
        left.view(np.uint8), right.view(np.uint8), TensorSpec("F32", (5, 3)), 2, "F16"
    )
    whole = (left.reshape(5, 2) @ right.reshape(2, 3)).astype(np.float32)
    yield tensor("product", "F32", [5, 3], branch_of("product", matrices), whole.tobytes())

    rows = octets.reshape(12, 32).copy()
    rows[::3] = rng.integers(0, 256, (4, 32), np.uint8)
    groups = RowGroups().encode(
        rows.reshape(-1), TensorSpec("F32", (12, 8)), (np.arange(12) % 3 > 0).astype(np.uint8)
    )
    node = branch_of("row_groups", groups, Bitpack())
    inner = functools.partial(split, dtype="BF16", codec=Huffman())
    node["parts"]["1"] = narrowed(groups.parts["1"].data, "F32", "BF16", inner)
    yield tensor("rows", "F32", [12, 8], node, rows.tobytes())


@functools.cache
def small_archive() -> bytes:
    """A valid archive of every codec and encoding, of ties and copies, with a file."""
    tensors = [*plain_tensors(), *encoded_tensors()]
    tensors.append(tensor("tied", "F16", [12], branch("alias", {"target": "raw", "tied": 1})))
    tensors.append(tensor("copy", "BF16", [96], branch("alias", {"target": "split", "tied": 0})))
    head = b"\x10\0\0\0\0\0\0\0{some literal}  "
    with Archive(archive(tensors)) as opened:
        content = head + opened.read("raw").tobytes() + opened.read("zstd").tobytes() + b"tail"
    segments: list[Node] = [{"literal": len(head)}, {"count": 2}, {"literal": 4}]
    files = [file("model.x", content, segments, coded(Zstd(), np.frombuffer(head + b"tail", np.uint8)))]
    plain = archive(tensors, files, metadata={"a": "b"})
    with Archive(plain) as opened:
        streams_end = opened._reader.footer.manifest_offset
        return sealed(plain[:streams_end], opened.manifest_json, compressed=True)


@functools.cache
def expected() -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return contents(Archive(small_archive()))


def contents(opened: Archive) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every tensor."""
    outs = {name: np.empty(opened.spec(name).nbytes, np.uint8) for name in opened}
    opened.read_into(outs)
    return {name: (*opened.spec(name), outs[name].tobytes()) for name in opened}


def changed(data: bytes, at: int) -> Iterator[bytes]:
    """The bytes with one of them changed, in several ways."""
    for byte in {change(data[at]) for change in CHANGES} - {data[at]}:
        yield data[:at] + bytes([byte]) + data[at + 1 :]


def test_the_archive_is_valid_and_holds_every_codec_and_encoding() -> None:
    with Archive(small_archive()) as opened:
        opened.verify(deep=True)
        text = opened.manifest_json.decode()
        assert len(small_archive()) < 7500
    for kind, offers in (("codec", builtin_registry().codecs), ("encoding", builtin_registry().encodings)):
        for name in offers:
            assert f'"{kind}":"{name}"' in text, name


def test_every_changed_byte_is_noticed_or_makes_no_difference() -> None:
    data = small_archive()
    for at in range(0, len(data), STRIDE):
        for damaged in changed(data, at):
            try:
                found = contents(Archive(damaged))
            except CmpkError:
                continue
            assert found == expected(), at


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    data = small_archive()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            Archive(data[:length])
    for length in range(0, len(data), 97):
        path = tmp_path / "cut.cmpk"
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            cmpk.torch.load_file(path)


@pytest.mark.parametrize("n_extra", [1, 16, 72, 4096])
def test_bytes_too_many_are_noticed_wherever_they_are(n_extra: int) -> None:
    data = small_archive()
    for at in range(0, len(data) + 1, 61):
        for extra in (bytes(n_extra), data[at : at + n_extra]):
            try:
                found = contents(Archive(data[:at] + extra + data[at:]))
            except CmpkError:
                continue
            assert not extra or found == expected()


def test_two_changed_bytes_are_noticed() -> None:
    data = small_archive()
    rng = np.random.default_rng(0)
    for one, other in rng.integers(0, len(data), (3000, 2)).tolist():
        damaged = bytearray(data)
        damaged[one] ^= 0x5A
        damaged[other] ^= 0xA5
        if damaged == data:
            continue
        try:
            found = contents(Archive(bytes(damaged)))
        except CmpkError:
            continue
        assert found == expected()


def leaf_places() -> list[tuple[str, Leaf]]:
    """Every stream, and the tensor or file that it is part of."""
    opened = Archive(small_archive())
    places = [(name, found) for name in opened for found in leaves_of(opened.stored(name))]
    for entry in opened.manifest.files:
        literal = opened.stored_literal(entry)
        assert literal is not None
        places += [(entry.path, found) for found in leaves_of(literal)]
    return places


def resigned(offset: int, nbytes: int, stream: bytes) -> bytes:
    """The small archive with another stream in the place of one, and digests to match."""
    with Archive(small_archive()) as opened:
        manifest, end = opened.manifest_json, opened._reader.footer.manifest_offset
    body = small_archive()[:end]
    digests = [xxhash.xxh3_64_hexdigest(data).encode() for data in (body[offset : offset + nbytes], stream)]
    assert manifest.count(digests[0]) == 1
    return sealed(body[:offset] + stream + body[offset + nbytes :], manifest.replace(*digests))


@pytest.mark.parametrize(
    ("name", "place"), [(f"{n}@{p.offset}", (n, p)) for n, p in leaf_places() if p.node.nbytes]
)
def test_streams_that_are_made_to_match_give_bytes_or_an_error(
    name: str, place: tuple[str, Leaf], tmp_path: Path
) -> None:
    """Anything may be in a stream: decoding ends, in its place, and deep verification finds the lie."""
    owner, found = place
    offset, nbytes = found.offset, found.node.nbytes
    stream = small_archive()[offset : offset + nbytes]
    for at in range(0, nbytes, STRIDE):
        for damaged in changed(stream, at):
            opened = Archive(resigned(offset, nbytes, damaged))
            if owner not in opened:
                _check_file(opened, tmp_path)
            elif _is_another_tensor(opened, owner) and at % 8 == 0:
                with pytest.raises(FormatError):
                    opened.verify(deep=True)


def _is_another_tensor(opened: Archive, name: str) -> bool:
    """Whether a tensor was decoded, and is not what it was."""
    try:
        data = opened.read(name).tobytes()
    except FormatError:
        return False
    assert len(data) == len(expected()[name][2])
    return data != expected()[name][2]


def _check_file(opened: Archive, folder: Path) -> None:
    """The file is restored as it was, or not at all."""
    try:
        [path] = unpack(opened, folder)
    except FormatError:
        assert list(folder.iterdir()) == []
        return
    with Archive(small_archive()) as whole:
        [entry] = whole.manifest.files
        assert path.read_bytes() == b"".join(piece.tobytes() for piece in whole.file_chunks(entry))
    path.unlink()


def test_a_manifest_that_is_made_to_match_gives_tensors_or_an_error() -> None:
    with Archive(small_archive()) as opened:
        manifest, end = opened.manifest_json, opened._reader.footer.manifest_offset
    body = small_archive()[:end]
    survivors = 0
    for at in range(0, len(manifest), 2 * STRIDE):
        for damaged in changed(manifest, at):
            try:
                contents(Archive(sealed(body, damaged)))
                survivors += 1
            except CmpkError:
                continue
    assert survivors > 0, "nothing was let through: this tests no decoding"


HOSTILE = st.one_of(
    st.sampled_from(
        [0, 1, -1, 2, 7, 8, 255, 256, 257, 65535, 65536, 1 << 31, 1 << 32, 1 << 47, 1 << 48, (1 << 48) + 1,
         (1 << 63) - 1, -(1 << 63), 1 << 63, 10**30, "", "raw", "zstd", "huffman", "rans", "bitpack", "alias",
         "float_split", "narrow", "codebook", "row_groups", "plain", "unknown", "F4", "F16", "F64", "U8",
         "affine", "bitmask", "cast", "gap_index", "product", "0" * 16, "0" * 64, "é", "\0", "..", None, True,
         0.5, [], [0], [1 << 48], [1] * 70, {}, {"a": 1}]
    ),
    st.integers(-1000, 1000),
)  # fmt: skip
"""What somebody might write in a manifest who knows the format."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


@functools.cache
def _manifest() -> tuple[bytes, bytes, list[tuple[Any, ...]]]:
    with Archive(small_archive()) as opened:
        manifest, end = opened.manifest_json, opened._reader.footer.manifest_offset
    return small_archive()[:end], manifest, list(_places(json.loads(manifest)))


@given(st.data())
def test_any_values_in_a_manifest_give_tensors_or_an_error(data: st.DataObject) -> None:
    body, text, places = _manifest()
    manifest = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places))
        holder = manifest
        try:
            for key in path:
                holder = holder[key]
            action = data.draw(st.sampled_from(["set", "set", "set", "delete", "copy"]))
            if action == "delete":
                del holder[last]
            elif action == "copy" and isinstance(holder, list):
                holder.append(holder[last])
            else:
                holder[last] = data.draw(HOSTILE)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken it away
    changed_text = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
    try:
        opened = Archive(sealed(body, changed_text))
        contents(opened)
        opened.verify(deep=True)
    except CmpkError:
        pass


@given(st.binary(max_size=400))
def test_any_bytes_are_tensors_or_an_error(data: bytes) -> None:
    for source in (data, PREAMBLE + data, PREAMBLE + data + small_archive()[-72:], sealed(PREAMBLE, data)):
        with pytest.raises(FormatError):
            Archive(source)

"""The manifest: one form, and a clear error for each rule that is broken."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.errors import FormatError
from cmpk.format import FileEntry, Manifest, Node, Segment, TensorEntry
from cmpk.format.manifest import check_file_path, from_json, leaves, to_json

HEX_16, HEX_64 = "0" * 16, "0" * 64
LEAF = {"codec": "raw", "nbytes": 4, "xxh3": HEX_16}
TENSOR = {"name": "a", "dtype": "U8", "shape": [4], "blake3": HEX_64, "data": LEAF}
SPLIT = {"encoding": "split", "params": {"a": 1, "b": "x", "c": [1, 2]}, "parts": {"p": LEAF, "q": LEAF}}
FILE = {"path": "f", "nbytes": 4, "sha256": HEX_64, "segments": [{"count": 1}]}
LITERAL = {**FILE, "segments": [{"literal": 4}], "literal": LEAF}

LOSSY = {
    "name": "a",
    "dtype": "U8",
    "shape": [4],
    "blake3": HEX_64,
    "quality": {"error_ppb": (1 << 63) - 1, "zeros": 1},
    "data": LEAF,
}
INPUT = {"minmax": [0xBF800000, 0x40000000], "percentile": [0, 0], "mse": [0x80000001, 1]}
WITH_INPUT = {"name": "a", "dtype": "U8", "shape": [4], "blake3": HEX_64, "input": INPUT, "data": LEAF}
SAME = {
    "name": "b",
    "dtype": "U8",
    "shape": [4],
    "data": {"encoding": "alias", "params": {"target": "a", "tied": 0}},
}
LOSSY_FILE = {"path": "f", "nbytes": 4, "segments": [{"count": 1}]}


def text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def manifest(**members: object) -> bytes:
    return text({"producer": "test", **members})


def nested(depth: int) -> dict[str, Any]:
    """A node with ``depth`` nodes on the way to its leaf, both included."""
    node: dict[str, Any] = LEAF
    for _ in range(depth - 1):
        node = {"encoding": "e", "parts": {"p": node}}
    return node


@pytest.mark.parametrize(
    "data",
    [
        manifest(),
        manifest(recipe="r", metadata={"z": "1", "a": "2"}, providers={"a": "p 1", "b": "q 2"}),
        manifest(tensors=[TENSOR]),
        manifest(tensors=[{**TENSOR, "data": SPLIT}]),
        manifest(tensors=[{**TENSOR, "shape": [], "dtype": "F32"}]),
        manifest(tensors=[{**TENSOR, "shape": [0, 1 << 48, 1 << 48]}]),
        manifest(tensors=[{**TENSOR, "shape": [1 << 48]}]),
        manifest(tensors=[{**TENSOR, "shape": [1] * 64}]),
        manifest(tensors=[{**TENSOR, "name": ""}, {**TENSOR, "name": "é\u2028\U0001f642\"\\\n\u0001"}]),
        manifest(tensors=[{**TENSOR, "data": nested(8)}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e" * 64, "params": {"p": -(1 << 63)}}}]),
        manifest(recipe="r", calibration=HEX_64, metadata={"a": "b"}),
        manifest(tensors=[LOSSY, {**TENSOR, "name": "b"}], files=[LOSSY_FILE]),
        manifest(tensors=[{**LOSSY, "quality": {}}], files=[LOSSY_FILE]),
        manifest(tensors=[WITH_INPUT]),
        manifest(tensors=[LOSSY, SAME], files=[{**LOSSY_FILE, "segments": [{"first": 1, "count": 1}]}]),
        manifest(tensors=[TENSOR], files=[FILE, {**LITERAL, "path": "g/h.i"}]),
        manifest(files=[{"path": "empty", "nbytes": 0, "sha256": HEX_64}]),
    ],
)  # fmt: skip
def test_a_canonical_manifest_is_read_and_written_to_the_same_bytes(data: bytes) -> None:
    assert to_json(from_json(data)) == data


names = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.integers(-(1 << 63), (1 << 63) - 1)
nodes = st.recursive(
    st.builds(Node, codec=st.just("raw"), nbytes=st.integers(0, 1 << 48), xxh3=st.just(HEX_16)),
    lambda parts: st.builds(
        Node,
        encoding=st.just("e"),
        params=st.dictionaries(names, numbers | names | st.lists(numbers, max_size=3), max_size=3).map(
            lambda params: dict(sorted(params.items()))
        ),
        parts=st.dictionaries(names, parts, max_size=3),
    ),
    max_leaves=5,
)


@given(
    name=names,
    shape=st.lists(st.integers(0, 1 << 9), max_size=5),
    node=nodes,
    metadata=st.dictionaries(names, names, max_size=3),
)
def test_any_manifest_comes_back(name: str, shape: list[int], node: Node, metadata: dict[str, str]) -> None:
    tensor = TensorEntry(name=name, dtype="U8", shape=tuple(shape), blake3=HEX_64, data=node)
    given_manifest = Manifest(producer="p", metadata=metadata, tensors=[tensor])
    data = to_json(given_manifest)
    assert from_json(data) == given_manifest
    # The form that section 3 describes is what another JSON writer gives, too.
    assert json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False).encode() == data


@pytest.mark.parametrize(
    "data",
    [
        b'{"producer": "test"}',
        b' {"producer":"test"}',
        b'{"producer":"test"}\n',
        b'{"producer":"te\\u0073t"}',
        b'{"producer":"\\u00E9"}',
        b'{"producer":"a\\/b"}',
        b'{"producer":"\\u001F"}',
        b'{"producer":"test","recipe":""}',
        b'{"producer":"test","tensors":[]}',
        b'{"recipe":"x","producer":"test"}',
        b'{"producer":"test","producer":"test"}',
        b'{"producer":"test","metadata":{"a":"1","a":"1"}}',
        manifest(tensors=[TENSOR]).replace(b'"nbytes":4', b'"nbytes":-0'),
        manifest(tensors=[{**TENSOR, "data": {**LEAF, "parts": {}}}]),
    ],
)  # fmt: skip
def test_any_other_form_of_the_same_content_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="canonical"):
        from_json(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"producer":1}',
        b'{"producer":null}',
        b'{"producer":"\xff"}',
        b'{"producer":"\xed\xa0\x80"}',
        b'{"producer":"\\ud800"}',
        b'{"producer":"a\x01b"}',
        b'{"producer":"test"}{"producer":"test"}',
        b'{"producer":"test","extra":1}',
        manifest(metadata={"a": 1}),
        manifest(metadata=["a"]),
        manifest(tensors={}),
        manifest(tensors=[{**TENSOR, "extra": 1}]),
        manifest(tensors=[{**TENSOR, "shape": ["4"]}]),
        manifest(tensors=[{**TENSOR, "shape": [True]}]),
        manifest(tensors=[TENSOR]).replace(b'"nbytes":4', b'"nbytes":4.0'),
        manifest(tensors=[TENSOR]).replace(b'"nbytes":4', b'"nbytes":4e0'),
        manifest(tensors=[TENSOR]).replace(b'"shape":[4]', b'"shape":[4.0]'),
        manifest(tensors=[{**TENSOR, "name": None}]),
        manifest(tensors=[{**TENSOR, "data": None}]),
        manifest(tensors=[{**TENSOR, "data": {**LEAF, "nbytes": "4"}}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e", "params": {"p": True}}}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e", "params": {"p": None}}}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e", "params": {"p": 0.5}}}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e", "params": {"p": ["x"]}}}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e", "params": {"p": {}}}}]),
        manifest(tensors=[{**TENSOR, "shape": [10**400]}]),
        manifest(tensors=[{**TENSOR, "data": {"encoding": "e", "params": {"p": 1 << 63}}}]),
        b'{"producer":"test","tensors":' + b"[" * 100_000,
        b'{"producer":"test","tensors":[{"data":' + b'{"parts":{"p":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        from_json(data)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        ({"dtype": "U9"}, "unknown dtype 'U9'"),
        ({"dtype": "u8"}, "unknown dtype"),
        ({"shape": [-1]}, "beyond the limits"),
        ({"shape": [(1 << 48) + 1, 0]}, "beyond the limits"),
        ({"shape": [1 << 200, 0]}, "beyond the limits|can't be read"),
        ({"shape": [1] * 65}, "beyond the limits"),
        ({"shape": [1 << 48], "dtype": "I16"}, "within the limit"),
        ({"shape": [1 << 48] * 64}, "within the limit"),
        ({"shape": [3], "dtype": "F4"}, "not whole bytes"),
        ({"shape": [2], "dtype": "F6_E2M3"}, "not whole bytes"),
        ({"name": "n" * 4097}, "exceeds 4096 bytes"),
        ({"name": "é" * 2049}, "exceeds 4096 bytes"),
        ({"blake3": ""}, "blake3"),
        ({"blake3": "0" * 63}, "blake3"),
        ({"blake3": "0" * 63 + "A"}, "blake3"),
        ({"blake3": HEX_64 + "\n"}, "blake3"),
        ({"blake3": "٣" * 64}, "blake3"),
        ({**LOSSY, "quality": {"error_ppb": -1}}, "not within 63 bits"),
        ({**LOSSY, "quality": {"zeros": 1 << 63}}, "not within 63 bits"),
        ({**LOSSY, "quality": {"zeros": 1.5}}, "can't be read"),
        ({**LOSSY, "quality": {"error_ppb": 1, "sqnr": 1}}, "unknown field"),
        ({"input": {**INPUT, "mse": [1, 0]}}, "not one of finite numbers"),
        ({"input": {**INPUT, "mse": [0, 0x7F800000]}}, "not one of finite numbers"),
        ({"input": {**INPUT, "minmax": [0, 1 << 32]}}, "not one of finite numbers"),
        ({"input": {**INPUT, "minmax": [-1, 0]}}, "not one of finite numbers"),
        ({"input": {**INPUT, "minmax": [0]}}, "can't be read"),
        ({"input": {**INPUT, "minmax": [0, 1 << 200]}}, "not one of finite numbers"),
        ({"input": {"minmax": [0, 1]}}, "can't be read"),
        (
            {"data": {"encoding": "alias", "params": {"tied": 1}}, "blake3": "", "quality": {}},
            "no quality of its own",
        ),
        ({"data": {"encoding": "alias"}}, "an alias has no blake3 and no input"),
        ({"data": SAME["data"], "blake3": "", "input": INPUT}, "an alias has no blake3 and no input"),
        ({"data": {}}, "either a codec or an encoding"),
        ({"data": {**LEAF, "encoding": "e"}}, "either a codec or an encoding"),
        ({"data": {**LEAF, "params": {"a": 1}}}, "a leaf has no params"),
        ({"data": {**LEAF, "parts": {"p": LEAF}}}, "a leaf has no params"),
        ({"data": {**LEAF, "codec": "Raw"}}, "not a codec id"),
        ({"data": {**LEAF, "codec": "r w"}}, "not a codec id"),
        ({"data": {**LEAF, "codec": "raw\n"}}, "not a codec id"),
        ({"data": {**LEAF, "codec": "r" * 65}}, "not a codec id"),
        ({"data": {**LEAF, "nbytes": -1}}, "beyond the limits"),
        ({"data": {**LEAF, "nbytes": (1 << 48) + 1}}, "beyond the limits"),
        ({"data": {"codec": "raw", "nbytes": 4}}, "xxh3"),
        ({"data": {**LEAF, "xxh3": "0" * 15 + "G"}}, "xxh3"),
        ({"data": {"nbytes": 4, "encoding": "e"}}, "a branch has no nbytes"),
        ({"data": {"xxh3": HEX_16, "encoding": "e"}}, "a branch has no nbytes"),
        ({"data": {"encoding": "plain"}}, "not an encoding id"),
        ({"data": {"encoding": "É"}}, "not an encoding id"),
        ({"data": {"encoding": "e" * 65}}, "not an encoding id"),
        ({"data": {"encoding": "e", "params": {"b": 1, "a": 1}}}, "ascending"),
        ({"data": {"encoding": "e", "params": {"\U00010000": 1, "\ue000": 1}}}, "ascending"),
        ({"data": {"encoding": "e", "parts": {str(i): LEAF for i in range(65)}}}, "65 parts exceed 64"),
        ({"data": nested(9)}, "deeper than 8"),
    ],
)  # fmt: skip
def test_a_tensor_that_breaks_a_rule_is_refused(tensor: dict[str, Any], problem: str) -> None:
    given_members = {**TENSOR, **tensor}
    order = [key for key in TensorEntry.__struct_fields__ if key in given_members]
    order += [key for key in given_members if key not in order]
    members = {key: given_members[key] for key in order if given_members[key] != ""}
    node = members["data"]
    members["data"] = {key: node[key] for key in Node.__struct_fields__ if key in node}
    with pytest.raises(FormatError, match=problem):
        from_json(manifest(tensors=[members]))


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ({"path": ""}, "plain relative path"),
        ({"path": "/f"}, "plain relative path"),
        ({"path": "../f"}, "plain relative path"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "x" * 64}, "sha256"),
        ({"nbytes": 5}, "add up to 4 bytes, not to 5"),
        ({"nbytes": -4}, "add up to 4"),
        ({"segments": [{}]}, "neither literal bytes nor tensors"),
        ({"segments": [{"literal": 4, "count": 1}]}, "neither literal bytes nor tensors"),
        ({"segments": [{"literal": -4}]}, "neither literal bytes nor tensors"),
        ({"segments": [{"first": 1}]}, "neither literal bytes nor tensors"),
        ({"segments": [{"first": -1, "count": 1}]}, "neither literal bytes nor tensors"),
        ({"segments": [{"count": -1}]}, "neither literal bytes nor tensors"),
        ({"segments": [{"count": 3}]}, "the files take 3 tensors"),
        ({"segments": [{"count": 1}] * 3, "nbytes": 12}, "the files take 3 tensors"),
        ({"segments": [{"first": 2, "count": 1}]}, "does not have"),
        ({"segments": [{"first": 1 << 62, "count": 1}]}, "does not have"),
        ({"segments": [{"count": (1 << 63) - 1}]}, "the files take"),
        ({"segments": [{"count": (1 << 63) - 1}, {"count": -(1 << 63)}]}, "does not have|neither"),
        ({"segments": [{"literal": 4}]}, "do not belong together"),
        ({"literal": LEAF}, "do not belong together"),
        ({"segments": [{"literal": 4}], "literal": {"encoding": "e"}}, "not a leaf"),
        ({"segments": [{"literal": 4}], "literal": {**LEAF, "codec": "?"}}, "not a codec id"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_rule_is_refused(file: dict[str, Any], problem: str) -> None:
    tensors = [TENSOR, {**TENSOR, "name": "b"}]
    with pytest.raises(FormatError, match=problem):
        from_json(manifest(tensors=tensors, files=[{**FILE, **file}]))


def test_the_members_of_providers_are_ascending() -> None:
    with pytest.raises(FormatError, match="providers are not in ascending order"):
        from_json(manifest(providers={"b": "x 1", "a": "y 1"}))


def test_two_tensors_have_two_names() -> None:
    with pytest.raises(FormatError, match="two tensors are named 'a'"):
        from_json(manifest(tensors=[TENSOR, {**TENSOR, "name": "b"}, TENSOR]))


@pytest.mark.parametrize(
    ("path", "ok"),
    [
        ("f", True), ("a/b/c.d", True), ("...", True), (".hidden", True), ("a b", True), ("é/字", True),
        ("ab:c", True), ("1:", True), ("p" * 4096, True), ("~", True), ("-rf", True),
        ("", False), ("/", False), ("/a", False), ("a/", False), ("a//b", False), (".", False),
        ("..", False), ("a/..", False), ("./a", False), ("a/./b", False), ("a\\b", False), ("C:", False),
        ("a:b", False), ("c:/x", False), ("a\0b", False), ("a\nb", False), ("a\x7f", False),
        ("p" * 4097, False),
        ("é" * 2049, False),
    ],
)  # fmt: skip
def test_paths_are_plain_and_relative(path: str, ok: bool) -> None:
    if ok:
        check_file_path(path)
        return
    with pytest.raises(FormatError, match="plain relative path"):
        check_file_path(path)


@given(st.text(st.characters(codec="utf-8"), max_size=20) | st.text("./\\:aC\0", max_size=8))
def test_a_path_that_passes_stays_below_the_folder(path: str) -> None:
    try:
        check_file_path(path)
    except FormatError:
        return
    parts = path.split("/")
    assert all(part not in ("", ".", "..") for part in parts)
    assert "\\" not in path


@pytest.mark.parametrize(
    "paths",
    [
        ["a", "a"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["a", "a.b", "a/b"],
        ["x/a/b", "x/a!", "x/a"],
        ["a", "a b", "a/b/c"],
    ],
)
def test_no_path_is_taken_twice_or_inside_another(paths: list[str]) -> None:
    files = [{"path": path, "nbytes": 0, "sha256": HEX_64} for path in paths]
    with pytest.raises(FormatError, match="is taken twice"):
        from_json(manifest(files=files))


def test_paths_that_only_begin_alike_are_two_files() -> None:
    files = [
        {"path": path, "nbytes": 0, "sha256": HEX_64} for path in ("a", "ab", "a.b", "a!", "b/a", "b/ab")
    ]
    assert len(from_json(manifest(files=files)).files) == 6


@pytest.mark.parametrize(
    ("limit", "members"),
    [
        ("MAX_TENSORS", {"tensors": [{**TENSOR, "name": str(index)} for index in range(4)]}),
        ("MAX_FILES", {"files": [{"path": str(i), "nbytes": 0, "sha256": HEX_64} for i in range(4)]}),
        ("MAX_SEGMENTS", {"files": [{**LITERAL, "segments": [{"literal": 1}] * 4}]}),
    ],
)
def test_counts_are_limited(limit: str, members: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from_json(manifest(**members))
    monkeypatch.setattr(f"cmpk.format.manifest.{limit}", 4)
    from_json(manifest(**members))
    monkeypatch.setattr(f"cmpk.format.manifest.{limit}", 3)
    with pytest.raises(FormatError, match="exceed 3"):
        from_json(manifest(**members))


def test_leaves_are_told_in_file_order() -> None:
    leaf = [Node(codec=f"c{index}") for index in range(4)]
    inner = Node(encoding="e", parts={"z": leaf[1], "a": leaf[2]})
    tree = Node(encoding="e", parts={"1": leaf[0], "0": inner, "2": leaf[3]})
    assert list(leaves(tree)) == leaf


def test_many_paths_are_compared_quickly() -> None:
    files = [{"path": "a/" * 40 + str(i), "nbytes": 0, "sha256": HEX_64} for i in range(20_000)]
    assert seconds_of(lambda: from_json(manifest(files=files))) < 2


def test_checking_takes_memory_in_proportion_to_the_manifest() -> None:
    data = manifest(
        tensors=[{**TENSOR, "name": str(index), "shape": [1 << 48] * 64} for index in range(1000)]
    )
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            from_json(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
    finally:
        tracemalloc.stop()


def seconds_of(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def test_structures_of_the_manifest_are_values() -> None:
    for value in (Node(codec="raw"), Segment(literal=1), FileEntry("p", 0, HEX_64), Manifest(producer="p")):
        with pytest.raises(AttributeError):
            value.nbytes = 1  # type: ignore[union-attr, misc]
    assert msgspec.structs.replace(Node(codec="raw"), nbytes=3).nbytes == 3

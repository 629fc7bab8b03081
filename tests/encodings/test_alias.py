"""alias: another tensor's bytes under another name, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

import cmpk.torch
from cmpk.archive import Archive
from cmpk.errors import FormatError
from tests.builders import Node, archive, branch, leaf, tensor

BYTES = tensor("a", "U8", [2], leaf(b"xy"), b"xy")

TARGET = {"target": "a", "tied": 1}


def alias(name: str = "b", *, dtype: str = "U8", shape: list[int] | None = None, **params: Any) -> Node:
    given = TARGET | params
    return tensor(name, dtype, [2] if shape is None else shape, branch("alias", given))


@pytest.mark.parametrize("tied", [0, 1])
def test_an_alias_has_the_bytes_of_its_target(tied: int) -> None:
    found = Archive(archive([BYTES, alias(tied=tied)]))
    found.verify(deep=True)
    assert found.read("b").tobytes() == b"xy"
    assert found.read_range("b", 1, 2).tobytes() == b"y"
    assert found.target_of("b") == "a"
    assert found.is_tied("b") == bool(tied)


@pytest.mark.parametrize("tied", [0, 1])
def test_only_a_tied_alias_is_the_same_tensor(tied: int) -> None:
    loaded = cmpk.torch.load(archive([BYTES, alias(tied=tied)]))
    assert (loaded["a"] is loaded["b"]) == bool(tied)
    assert loaded["b"].tolist() == [120, 121]


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ([alias(), BYTES], "not an earlier tensor"),
        ([BYTES, alias(target="b")], "not an earlier tensor"),
        ([BYTES, alias(target="c")], "not an earlier tensor"),
        ([BYTES, alias(), alias("c", target="b")], "not an earlier tensor"),
        ([BYTES, alias(dtype="I8")], "another dtype or shape"),
        ([BYTES, alias(shape=[1, 2])], "another dtype or shape"),
        ([BYTES, alias(shape=[1])], "another dtype or shape"),
        ([BYTES, alias(tied=2)], "tied"),
        ([BYTES, alias(tied=-1)], "tied"),
        ([BYTES, alias(tied="1")], "tied"),
        ([BYTES, alias(target=0)], "not a name"),
        ([BYTES, alias(target=[1])], "not a name"),
        ([BYTES, alias(extra=1)], "the parameters are"),
        ([BYTES, tensor("b", "U8", [2], branch("alias", {}))], "the parameters are"),
        ([BYTES, tensor("b", "U8", [2], branch("alias", TARGET, x=leaf(b"")))], "has the parts"),
    ],
)  # fmt: skip
def test_an_alias_that_breaks_a_rule_is_refused(tensors: list[Node], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        Archive(archive(tensors))


def test_only_a_whole_tensor_is_an_alias() -> None:
    inner = branch("alias", {"target": "a", "tied": 0})
    outer = branch("narrow", {"dtype": "F16"}, values=inner)
    with pytest.raises(FormatError, match="only a whole tensor can be an alias"):
        Archive(archive([tensor("a", "F16", [2], leaf(bytes(4))), tensor("b", "F32", [2], outer)]))


def test_an_alias_has_no_digest_of_its_own() -> None:
    entry = alias()
    entry = {"name": entry["name"], "dtype": "U8", "shape": [2], "blake3": "0" * 64, "data": entry["data"]}
    with pytest.raises(FormatError, match="an alias has no blake3"):
        Archive(archive([BYTES, entry]))

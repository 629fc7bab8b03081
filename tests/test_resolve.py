"""Trees whose codecs or encodings are not installed: located and checked, and clear about what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from cmpk.archive import Archive
from cmpk.errors import FormatError, UnknownIdError
from tests.builders import archive, branch, leaf, tensor


def opened(node: dict[str, Any], providers: dict[str, str] | None = None, shape: int = 4) -> Archive:
    members = {} if providers is None else {"providers": providers}
    entries = [tensor("a", "F32", [shape], node), tensor("b", "U8", [2], leaf(b"ok"))]
    return Archive(archive(entries, **members))


def reason(found: Archive) -> str:
    with pytest.raises(UnknownIdError) as raised:
        found.read("a")
    return str(raised.value)


@pytest.mark.parametrize(
    "node",
    [
        leaf(b"????", "fancy"),
        branch(
            "fancy", {"level": 3, "name": "x", "list": [1, -2]}, part=leaf(b"??"), more=leaf(b"?", "zstd")
        ),
        branch("narrow", {"dtype": "F16"}, values=leaf(b"???", "fancy")),
        branch("narrow", {"dtype": "F16"}, values=branch("fancy", {}, x=leaf(b""))),
        branch("fancy", {}, x=branch("float_split", {"nonsense": 1}, y=leaf(b"?", "huffman"))),
        branch("fancy", {}),
    ],
)
def test_what_is_missing_is_named_and_the_rest_can_be_read(node: dict[str, Any]) -> None:
    found = opened(node, {"fancy": "cmpk-fancy 1.2"})
    found.verify()
    assert found.read("b").tobytes() == b"ok"
    assert reason(found).startswith("tensor 'a' needs ")
    assert reason(found).endswith("'fancy'; it comes with cmpk-fancy 1.2: pip install cmpk-fancy")


def test_without_a_provider_it_is_a_newer_cmpk_that_has_it() -> None:
    assert reason(opened(leaf(b"????", "fancy"))) == (
        "tensor 'a' needs codec 'fancy', which this version of cmpk does not have"
    )


@pytest.mark.parametrize("provider", ["-rf 1", "https://evil/x 1", "a;b 1", "$(x) 1", "", " ", "a\nb 1"])
def test_a_provider_that_is_no_package_is_not_to_be_installed(provider: str) -> None:
    message = reason(opened(leaf(b"????", "fancy"), {"fancy": provider}))
    assert "pip install" not in message
    assert "no name of a package" in message


def test_sizes_below_what_is_not_installed_are_not_checked_but_those_beside_it_are() -> None:
    opened(branch("fancy", {}, x=leaf(b"x" * 1000, "raw")))
    with pytest.raises(FormatError, match="can't hold"):
        opened(branch("narrow", {"dtype": "F16"}, values=leaf(b"x", "raw")))


def test_an_unknown_codec_may_not_expand_without_bound() -> None:
    opened(leaf(b"", "fancy"), shape=65536 // 4)
    for stored, shape in ((b"", 65536 // 4 + 1), (b"x", 2 * 65536 // 4 + 1)):
        with pytest.raises(FormatError, match="can't hold"):
            opened(leaf(stored, "fancy"), shape=shape)


@pytest.mark.parametrize(
    "encoding",
    ["float_split", "narrow", "codebook", "row_groups", "affine", "cast", "bitmask", "gap_index", "product"],
)
def test_encodings_have_exactly_their_parts(encoding: str) -> None:
    for parts in ({}, {"unknown": leaf(b"")}):
        with pytest.raises(FormatError, match=f"tensor 'a': encoding '{encoding}'"):
            opened(branch(encoding, {}, **parts))

"""spec/decode.py on files that nobody wrote: it answers, and as the package does."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.errors import FormatError

VALID = sorted((Path(__file__).resolve().parents[2] / "spec" / "vectors" / "valid").glob("*.cmpk"))
FOOTER = struct.Struct("<QQQ32sQ8s")

on_each_backend = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def leaves(node: Any) -> Iterator[dict[str, Any]]:
    """The leaves of a parsed manifest, in file order."""
    if isinstance(node, dict) and "codec" in node:
        yield node
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from leaves(part)


@st.composite
def files_with_damaged_streams(draw: st.DrawFn) -> bytes:
    """A valid vector with bytes of its streams changed, and the digests of streams and manifest made anew."""
    data = draw(st.sampled_from(VALID)).read_bytes()
    offset, stored_nbytes, nbytes, *_ = FOOTER.unpack(data[-FOOTER.size :])
    if stored_nbytes != nbytes or offset == 16:
        return data
    body = bytearray(data[:offset])
    for at in draw(st.lists(st.integers(16, offset - 1), min_size=1, max_size=4)):
        body[at] = draw(st.integers(0, 255))
    manifest = json.loads(data[offset : -FOOTER.size])
    at = 16
    for leaf in leaves(manifest):
        size = leaf.get("nbytes", 0)
        at += -at % 64 if leaf["codec"] == "raw" and size >= 4096 else 0
        leaf["xxh3"] = xxhash.xxh3_64_hexdigest(bytes(body[at : at + size]))
        at += size
    text = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
    footer = FOOTER.pack(offset, len(text), len(text), hashlib.sha256(text).digest(), 0, data[-8:])
    return bytes(body) + text + footer


@given(data=st.sampled_from(VALID).map(Path.read_bytes), draw=st.data())
def test_decoder_finds_any_changed_byte(decode: ModuleType, data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    change = draw.draw(st.integers(1, 255))
    with pytest.raises((decode.Corrupt, decode.Unsupported)):
        decode.Archive(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]).validate()


@given(data=st.binary(max_size=300))
def test_decoder_refuses_bytes_that_are_no_archive(decode: ModuleType, data: bytes) -> None:
    with pytest.raises((decode.Corrupt, decode.Unsupported)):
        decode.Archive(data)


@given(data=files_with_damaged_streams())
@on_each_backend
@pytest.mark.usefixtures("backend")
def test_both_readers_agree_on_damaged_streams(decode: ModuleType, data: bytes) -> None:
    try:
        theirs = decode.Archive(data)
    except decode.Corrupt:  # only the padding was changed, which the package leaves to verification
        with pytest.raises(FormatError):
            Archive(data).verify()
        return
    ours = Archive(data)
    for tensor in theirs.tensors:
        if tensor.data.encoding == "alias":
            continue
        try:
            expected = decode.decode_checked(tensor.data, tensor.spec).tobytes()
        except decode.Corrupt:
            expected = None
        try:
            found = ours.read(tensor.name).tobytes()
        except FormatError:
            found = None
        assert found == expected

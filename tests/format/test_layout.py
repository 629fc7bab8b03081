"""The fixed parts of the container, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.errors import FormatError
from cmpk.format.layout import (
    ALIGNED_FROM_NBYTES,
    ALIGNMENT,
    FOOTER_NBYTES,
    MAX_MANIFEST_EXPANSION,
    PREAMBLE_NBYTES,
    SMALL_MANIFEST_NBYTES,
    Footer,
    check_preamble,
    padding_before,
    preamble,
)


def test_the_preamble_is_what_the_specification_shows() -> None:
    assert preamble() == bytes.fromhex("89434d504b0d0a1a 0000 0300 00000000")
    check_preamble(preamble())


@given(st.binary(min_size=PREAMBLE_NBYTES, max_size=PREAMBLE_NBYTES).filter(lambda data: data != preamble()))
def test_any_other_preamble_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_preamble(data)


@given(
    st.integers(16, 1 << 60),
    st.integers(0, 1 << 60),
    st.integers(0, SMALL_MANIFEST_NBYTES),
    st.binary(min_size=32, max_size=32),
)
def test_a_footer_comes_back(offset: int, stored: int, nbytes: int, sha256: bytes) -> None:
    footer = Footer(offset, stored, nbytes, sha256)
    data = footer.to_bytes()
    assert len(data) == FOOTER_NBYTES
    assert Footer.from_bytes(data, offset + stored + FOOTER_NBYTES) == footer
    for other in (-1, 1, 1 << 64):
        with pytest.raises(FormatError, match="describes a file"):
            Footer.from_bytes(data, offset + stored + FOOTER_NBYTES + other)


@pytest.mark.parametrize("stored", [0, 5, SMALL_MANIFEST_NBYTES // MAX_MANIFEST_EXPANSION, 1 << 18, 1 << 23])
def test_a_manifest_may_be_small_or_in_proportion_to_its_place(stored: int) -> None:
    most = max(SMALL_MANIFEST_NBYTES, MAX_MANIFEST_EXPANSION * stored)
    for nbytes, is_allowed in ((most, True), (most + 1, False)):
        data = Footer(PREAMBLE_NBYTES, stored, nbytes, bytes(32)).to_bytes()
        if is_allowed:
            assert Footer.from_bytes(data, PREAMBLE_NBYTES + stored + FOOTER_NBYTES).manifest_nbytes == most
        else:
            with pytest.raises(FormatError, match="stored bytes can't have"):
                Footer.from_bytes(data, PREAMBLE_NBYTES + stored + FOOTER_NBYTES)


@given(st.binary(min_size=FOOTER_NBYTES, max_size=FOOTER_NBYTES), st.integers(88, 1 << 64))
def test_any_bytes_are_a_footer_or_a_format_error(data: bytes, file_nbytes: int) -> None:
    try:
        footer = Footer.from_bytes(data, file_nbytes)
    except FormatError:
        return
    assert footer.to_bytes() == data


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 20))
def test_only_large_raw_streams_are_moved_and_by_less_than_the_alignment(offset: int, nbytes: int) -> None:
    padding = padding_before(offset, "raw", nbytes)
    if nbytes < ALIGNED_FROM_NBYTES:
        assert padding == 0
    else:
        assert 0 <= padding < ALIGNMENT
        assert (offset + padding) % ALIGNMENT == 0
    assert padding_before(offset, "zstd", nbytes) == 0

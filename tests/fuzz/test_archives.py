"""Archives are taken apart and put together, and changes of them get past their digests."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from cmpk.archive import Archive
from cmpk.errors import CmpkError
from tools.fuzz.archives import Archives, take_apart, with_right_digests
from tools.fuzz.samples import packed_samples, vectors
from tools.vectors.assemble import Leaf, build, leaf, leaves, one

VALID = vectors("valid")


def opens(data: bytes) -> bool:
    try:
        Archive(data).close()
    except CmpkError:
        return False
    return True


def test_an_archive_that_was_taken_apart_has_the_same_tensors_when_built_again() -> None:
    for data in packed_samples():
        content = take_apart(data)
        assert content is not None
        with Archive(data) as archive, Archive(build(content)) as again:
            assert archive.manifest == again.manifest
            assert all((archive.read(name) == again.read(name)).all() for name in archive)


def test_every_stream_of_an_archive_stays_with_its_leaf() -> None:
    streams = [b"abc", bytes(5000), b"d"]
    data = build(
        {
            "producer": "test",
            "tensors": [one("U8", [len(s)], s, leaf("raw", s))["tensors"][0] for s in streams],
        }
    )
    content = take_apart(data)
    assert content is not None
    assert [stored.stream for stored in leaves(content)] == streams
    assert all(isinstance(tensor["data"], Leaf) for tensor in content["tensors"])


def test_the_same_seed_makes_the_same_changes() -> None:
    def changed() -> list[bytes]:
        archives, random = Archives(VALID), Random(5)
        return [archives.mutate(data, random) for data in VALID]

    assert changed() == changed()


def test_many_changes_get_past_the_digests_and_most_break_a_rule() -> None:
    archives, random = Archives(VALID), Random(1)
    n_open = sum(opens(archives.mutate(random.choice(VALID), random)) for _ in range(400))
    assert 60 < n_open < 340


def test_an_archive_whose_bytes_changed_can_be_given_the_digests_of_what_it_holds() -> None:
    node = leaf("raw", b"abc")
    data = build(one("U8", [3], b"abd", node))
    with Archive(data) as archive, pytest.raises(CmpkError, match="BLAKE3"):
        archive.verify(deep=True)
    with Archive(with_right_digests(data)) as archive:
        archive.verify(deep=True)
        assert archive.read("a").tobytes() == b"abc"


def test_the_corpus_is_small() -> None:
    files = [file for file in Path("tools/fuzz/corpus").rglob("*") if file.is_file()]
    assert files
    assert sum(file.stat().st_size for file in files) < 1 << 20

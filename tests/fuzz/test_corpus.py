"""What fuzzing once found, and the golden files, on the kernels that are installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cmpk import kernels
from tools.fuzz.agreement import Agreement
from tools.fuzz.reader import Reader
from tools.fuzz.session import Target

CORPUS = Path(__file__).parents[2] / "tools" / "fuzz" / "corpus"

needs_native = pytest.mark.skipif(
    "native" not in kernels.built_in(), reason="the native kernels are not built"
)


@pytest.mark.parametrize("make_target", [Reader, pytest.param(Agreement, marks=needs_native)])
def test_nothing_breaks_on_golden_files_and_on_what_fuzzing_once_found(
    make_target: Callable[[], Target],
) -> None:
    target = make_target()
    found = sorted(CORPUS.joinpath(make_target.__name__.lower()).glob("*"))
    for data in (*target.seeds(), *(path.read_bytes() for path in found)):
        target.run(data)


@needs_native
def test_every_file_of_the_corpus_is_that_of_a_target() -> None:
    from tools.fuzz.run import KERNELS, READERS

    assert {folder.name for folder in CORPUS.iterdir()} <= {*KERNELS, *READERS}

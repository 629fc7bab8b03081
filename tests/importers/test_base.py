"""What no reader would take is refused while it is packed."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import cmpk.torch
from cmpk.archive import Archive
from cmpk.dtypes import TensorSpec
from cmpk.errors import SourceError
from cmpk.importers import ModelSource, SourceTensor, base


class Source(ModelSource):
    """Tensors of one byte each by the names given, as a plugin's importer may offer them."""

    def __init__(self, *tensors: tuple[str, tuple[int, ...]]) -> None:
        self.metadata = {}
        self.nbytes = len(tensors)
        self.notes = []
        self.was_read: list[str] = []
        self._tensors = tensors

    def tensors(self) -> Iterator[SourceTensor]:
        for name, shape in self._tensors:

            def read(name: str = name) -> np.ndarray:
                self.was_read.append(name)
                return np.zeros(1, np.uint8)

            yield SourceTensor(name, TensorSpec("U8", shape), read)


def test_names_at_the_limit_are_packed_and_longer_ones_refused() -> None:
    for name in ("n" * 4096, "ü" * 2048, "字" * 1365, ""):
        assert list(cmpk.torch.load(cmpk.torch.save({name: torch.ones(1)}))) == [name]
    for name in ("n" * 4097, "ü" * 2049, "字" * 1366):
        with pytest.raises(SourceError, match="exceeds 4096 bytes"):
            cmpk.torch.save({name: torch.ones(1)})


def test_sixty_four_dimensions_are_packed_and_more_refused() -> None:
    shape = [1] * 63 + [3]
    assert cmpk.torch.load(cmpk.torch.save({"a": torch.ones(shape)}))["a"].shape == torch.Size(shape)
    with pytest.raises(SourceError, match="beyond the limits"):
        cmpk.torch.save({"a": torch.ones([1, *shape])})


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_names_that_are_no_text_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="surrogates"):
        cmpk.torch.save({name: torch.ones(1)})
    with pytest.raises(SourceError, match="surrogates"):
        cmpk.torch.save({"a": torch.ones(1)}, metadata={name: "a"})
    with pytest.raises(SourceError, match="surrogates"):
        cmpk.torch.save({"a": torch.ones(1)}, metadata={"a": name})


def test_a_tensor_is_refused_before_it_is_read() -> None:
    source = Source(("fine", (1,)), ("n" * 5000, (1,)))
    with pytest.raises(SourceError, match="can't be packed"):
        cmpk.pack(source, io.BytesIO(), jobs=1)
    assert source.was_read == ["fine"]


def test_an_importer_that_repeats_a_name_is_refused() -> None:
    with pytest.raises(SourceError, match="two tensors named 'a'"):
        cmpk.pack(Source(("a", (1,)), ("b", (1,)), ("a", (1,))), io.BytesIO())


class Tying(Source):
    """Ties its second tensor to a name."""

    def __init__(self, tied_to: str, *, shared: bool, shape: tuple[int, ...] = (1,)) -> None:
        super().__init__(("a", (1,)), ("b", shape))
        self._tied_to = tied_to
        self._shared = shared

    def tensors(self) -> Iterator[SourceTensor]:
        first, second = super().tensors()
        yield dataclasses.replace(first, shared=self._shared)
        yield dataclasses.replace(second, tied_to=self._tied_to)


def test_a_tensor_is_tied_to_an_earlier_one_that_is_shared() -> None:
    sink = io.BytesIO()
    cmpk.pack(Tying("a", shared=True), sink)
    assert Archive(sink.getvalue()).is_tied("b")
    for source in (
        Tying("a", shared=False),
        Tying("b", shared=True),
        Tying("c", shared=True),
        Tying("a", shared=True, shape=(1, 1)),
    ):
        with pytest.raises(SourceError, match="no earlier tensor to be shared"):
            cmpk.pack(source, io.BytesIO())


def test_more_tensors_than_a_file_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_TENSORS", 3)
    cmpk.pack(Source(("a", (1,)), ("b", (1,)), ("c", (1,))), io.BytesIO())
    with pytest.raises(SourceError, match="more than 3 tensors"):
        cmpk.pack(Source(("a", (1,)), ("b", (1,)), ("c", (1,)), ("d", (1,))), io.BytesIO())

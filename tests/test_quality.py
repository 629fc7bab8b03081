"""Lossy tensors: what the manifest says of them, and what becomes of the files that they are from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

import cmpk
import cmpk.numpy
from cmpk import builtins
from cmpk.deviation import deviation
from cmpk.dtypes import TensorSpec
from cmpk.encodings import Codebook
from cmpk.encodings.base import Part
from cmpk.format import Manifest
from cmpk.hookspecs import hookimpl
from cmpk.importers.state_dict import StateDictSource
from cmpk.passes import Pass, Planned, Statistics
from cmpk.passes.base import branch
from cmpk.recipe import PassUse, Recipe, Rule
from cmpk.registry import Origin, Registry

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((64, 256)).astype(np.float32)
BIAS = RNG.standard_normal(256).astype(np.float32)
IDS = np.arange(600, dtype=np.int64)

LOSSLESS = PassUse("split_floats")
PRUNED = Recipe(
    "pruned",
    codecs=("raw", "huffman", "rans", "zstd:3"),
    rules=(
        Rule((LOSSLESS,), names=("*bias*",)),
        Rule((PassUse("prune", {"ratio": 0.75}), LOSSLESS)),
    ),
)


class Coarse(Pass):
    """Rounds to multiples of a half, and stores them as a codebook."""

    id = "coarse"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned:
        values = np.clip(np.rint(part.data.view(np.float32) * 2) / 2, -2, 1.5).astype(np.float32)
        values += np.float32(0)  # of the two zeros only one
        encoded = Codebook().encode(values.view(np.uint8), part.spec)
        assert encoded is not None
        return branch("codebook", part.spec, encoded)


@pytest.fixture(autouse=True)
def _lossy_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = SimpleNamespace(cmpk_passes=hookimpl(lambda: [Coarse()]))
    offers = Registry([(Origin("cmpk", cmpk.__version__), builtins), (Origin("tests", "1"), passes)])
    monkeypatch.setattr("cmpk.packer.registry", lambda: offers)


def packed(tensors: dict[str, np.ndarray], recipe: Recipe) -> cmpk.Archive:  # type: ignore[type-arg]
    return cmpk.Archive(cmpk.numpy.save(tensors, recipe=recipe))


def manifest_of(path: Path) -> Manifest:
    with cmpk.open(path) as archive:
        archive.verify(deep=True)
        return archive.manifest


def test_what_a_pass_changed_is_measured_and_the_digest_is_that_of_what_is_decoded() -> None:
    with packed({"w": WEIGHT}, PRUNED) as archive:
        archive.verify(deep=True)
        found = archive.read("w")
        quality = archive.entry("w").quality
    assert quality is not None
    expected = deviation(TensorSpec("F32", WEIGHT.shape), WEIGHT.reshape(-1).view(np.uint8), found)
    assert expected is not None
    assert quality.error_ppb == round(expected.error * 1e9) > 0
    assert quality.cosine_ppb == round((1 - expected.cosine) * 1e9) > 0
    assert quality.zeros == 3 * WEIGHT.size // 4
    assert quality.pruned_millibits == 8000
    assert quality.quantized_millibits == 0
    assert 0 < quality.coded_millibits < 12_000


def test_what_a_split_changed_is_decoded_to_be_measured() -> None:
    recipe = Recipe("coarse", codecs=("raw", "rans"), rules=(Rule((PassUse("coarse"),)),))
    with packed({"w": WEIGHT}, recipe) as archive:
        archive.verify(deep=True)
        found = archive.read("w").view(np.float32)
        quality = archive.entry("w").quality
        root = archive.stored("w").node
    assert found.tolist() == np.clip(np.rint(WEIGHT * 2) / 2, -2, 1.5).reshape(-1).tolist()
    assert quality is not None
    assert root.encoding == "codebook"
    assert quality.pruned_millibits == 0
    # Eight values are three bits, and the values themselves.
    assert quality.quantized_millibits == round(1000 * (3 + 8 * 32 / WEIGHT.size))
    assert quality.coded_millibits < quality.quantized_millibits


def test_what_did_not_change_is_lossless() -> None:
    zeros = np.zeros((64, 256), np.float32)
    with packed({"w": zeros, "bias": BIAS, "ids": IDS}, PRUNED) as archive:
        assert [archive.entry(name).quality for name in archive] == [None, None, None]
        assert archive.read("bias").tobytes() == BIAS.tobytes()


def test_equal_tensors_that_were_treated_differently_are_not_aliases() -> None:
    tensors = {"w": WEIGHT, "bias": WEIGHT, "again": WEIGHT.copy()}
    with packed({name: value.copy() for name, value in tensors.items()}, PRUNED) as archive:
        archive.verify(deep=True)
        assert archive.entry("bias").quality is None
        assert archive.read("bias").tobytes() == WEIGHT.tobytes()
        assert archive.target_of("again") == "w"
        assert archive.read("again").tobytes() == archive.read("w").tobytes() != WEIGHT.tobytes()


def test_different_tensors_that_became_equal_keep_their_figures() -> None:
    coarse = Recipe("coarse", rules=(Rule((PassUse("coarse"),)),))
    with packed({"w": WEIGHT, "v": np.rint(WEIGHT * 2) / 2}, coarse) as archive:
        assert archive.read("w").tobytes() == archive.read("v").tobytes()
        qualities = [archive.entry(name).quality for name in ("w", "v")]
        assert None not in qualities
        assert qualities[0] != qualities[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of two safetensors files, the second of which no pass changes, and a configuration."""
    model = tmp_path / "model"
    model.mkdir()
    for name, tensors in {"a": {"w": WEIGHT, "bias": BIAS}, "b": {"bias_2": BIAS + 1}}.items():
        cmpk.numpy.save_file(tensors, tmp_path / "part.cmpk")
        cmpk.unpack(tmp_path / "part.cmpk", model / f"{name}.safetensors", force=True)
    (model / "config.json").write_text('{"layers": 2}')
    return model


def test_a_file_of_lossy_tensors_has_no_digest_and_is_unpacked_as_it_is_decoded(
    source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.cmpk"
    cmpk.pack(source, path, recipe=PRUNED)
    digests = {file.path: file.sha256 for file in manifest_of(path).files}
    of = {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in digests}
    assert digests == of | {"a.safetensors": ""}
    cmpk.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "b.safetensors").read_bytes() == (source / "b.safetensors").read_bytes()
    # The header is the source's, the tensors are those that are loaded from the archive.
    cmpk.pack(tmp_path / "out" / "a.safetensors", tmp_path / "again.cmpk")
    loaded, again = cmpk.numpy.load_file(path), cmpk.numpy.load_file(tmp_path / "again.cmpk")
    assert again["w"].tobytes() == loaded["w"].tobytes() != WEIGHT.tobytes()
    assert again["bias"].tobytes() == BIAS.tobytes()


def test_unpacking_checks_each_tensor_of_a_file_without_a_digest(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cmpk.pack(source, tmp_path / "model.cmpk", recipe=PRUNED)
    with cmpk.open(tmp_path / "model.cmpk") as archive:
        another = msgspec.structs.replace(archive.entry("w"), blake3="0" * 64)
        monkeypatch.setitem(archive._entries, "w", another)
        with pytest.raises(cmpk.CorruptStreamError, match="'w' does not match its BLAKE3"):
            cmpk.unpack(archive, tmp_path / "out")


def test_what_a_pass_left_alone_is_noted_once_for_each_pass(tmp_path: Path) -> None:
    tensors = {f"ids.{i}": IDS + i for i in range(5)} | {"w": WEIGHT}
    report = cmpk.pack(tensors, tmp_path / "a.cmpk", recipe=PRUNED)
    assert report.notes == [
        "pass 'prune' can't handle 5 tensors, left as before: ids.0, ids.1, ids.2 and 2 more"
    ]


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_file_does_not_depend_on_threads(jobs: int, tmp_path: Path) -> None:
    tensors = {str(i): WEIGHT + np.float32(i) for i in range(6)}
    cmpk.pack(tensors, tmp_path / "a.cmpk", recipe=PRUNED, jobs=2)
    cmpk.pack(tensors, tmp_path / "b.cmpk", recipe=PRUNED, jobs=jobs)
    assert (tmp_path / "a.cmpk").read_bytes() == (tmp_path / "b.cmpk").read_bytes()


def test_a_checkpoint_whose_tensors_changed_is_unpacked_as_safetensors(tmp_path: Path) -> None:
    torch.save({"w": torch.from_numpy(WEIGHT), "bias": torch.from_numpy(BIAS)}, tmp_path / "m.pt")
    report = cmpk.pack(tmp_path / "m.pt", tmp_path / "m.cmpk", recipe=PRUNED)
    assert report.notes == [
        "'m.pt' can't hold tensors that were changed; unpacking gives a .safetensors file"
    ]
    assert [path.name for path in cmpk.unpack(tmp_path / "m.cmpk", tmp_path / "out")] == ["model.safetensors"]
    assert manifest_of(tmp_path / "m.cmpk").files == []


GLOBAL = Recipe(
    "global",
    rules=(
        Rule((LOSSLESS,), names=("bias",)),
        Rule((PassUse("prune", {"ratio": 0.5, "scope": "global"}), LOSSLESS)),
    ),
)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_pass_may_look_at_the_whole_model_first(jobs: int, tmp_path: Path) -> None:
    tensors = {"small": WEIGHT / 8, "bias": BIAS / 100, "large": WEIGHT * 8}
    cmpk.pack(tensors, tmp_path / "a.cmpk", recipe=GLOBAL, jobs=jobs)
    loaded = cmpk.numpy.load_file(tmp_path / "a.cmpk")
    zeros = {name: int((value == 0).sum()) for name, value in loaded.items()}
    assert abs(sum(zeros.values()) - WEIGHT.size) < WEIGHT.size / 100
    assert zeros["small"] > 0.95 * WEIGHT.size
    assert zeros["bias"] == 0


def test_a_model_that_can_be_read_only_once_is_enough_where_no_pass_looks_at_all_of_it() -> None:
    source = StateDictSource({"w": WEIGHT})
    assert cmpk.pack(source, io.BytesIO(), recipe=PRUNED).quality is not None
    with pytest.raises(cmpk.SourceError, match="read more than once"):
        cmpk.pack(StateDictSource({"w": WEIGHT}), io.BytesIO(), recipe=GLOBAL)

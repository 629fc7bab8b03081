"""Budgets: sizes that are met, errors that are kept, and scores that are reached."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cmpk
import cmpk.numpy
from cmpk import builtins
from cmpk.encodings import Affine
from cmpk.encodings.base import Part
from cmpk.errors import PassError, RecipeError, SourceError
from cmpk.format import Manifest
from cmpk.hookspecs import hookimpl
from cmpk.importers.state_dict import StateDictSource
from cmpk.packer import Packer
from cmpk.passes import Pass, Planned, Statistics
from cmpk.passes.base import branch
from cmpk.planner import Budget, Sizes, meet, smallest_good
from cmpk.rate import STEPS, RateCurve
from cmpk.recipe import PassUse, Recipe, Rule
from cmpk.registry import Origin, Registry

RNG = np.random.default_rng(3)


def layer(rows: int, columns: int, spread: float) -> np.ndarray:  # type: ignore[type-arg]
    scales = np.exp(RNG.normal(0, spread, (rows, 1)))
    return (RNG.standard_normal((rows, columns)) * scales).astype(np.float32)


WEIGHTS = {
    "embedding": layer(2000, 64, 0.4),
    "a": layer(256, 256, 0.1),
    "a.bias": RNG.standard_normal(256).astype(np.float32),
    "b": layer(512, 128, 0.8),
    "ids": np.arange(512),
}
NUMEL = sum(value.size for value in WEIGHTS.values())
RECIPE = Recipe(
    "steps",
    codecs=("raw", "bitpack", "huffman", "rans", "zstd:3"),
    min_saving=0.001,
    rules=(
        Rule((PassUse("quantize"), PassUse("split_floats")), min_rank=2),
        Rule((PassUse("split_floats"),)),
    ),
)


class Quantize(Pass):
    """Rounds to multiples of ``step`` root mean squares."""

    id = "quantize"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        if part.spec.dtype != "F32":
            return None
        values = part.data.view(np.float32)
        step = np.float32(float(options["step"]) * np.sqrt(np.square(values).mean()))  # type: ignore[arg-type]
        codes = np.rint(values / step).astype(np.int32)
        return branch("affine", part.spec, Affine().encode(codes, part.spec, step.reshape(1)))


@pytest.fixture(autouse=True)
def _with_quantize(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [item for item in builtins.cmpk_passes() if item.id != "quantize"]
    plugin = SimpleNamespace(
        cmpk_codecs=builtins.cmpk_codecs,
        cmpk_encodings=builtins.cmpk_encodings,
        cmpk_importers=builtins.cmpk_importers,
        cmpk_passes=hookimpl(lambda: [*own, Quantize()]),
    )
    offers = Registry([(Origin("cmpk", cmpk.__version__), plugin)])
    monkeypatch.setattr("cmpk.packer.registry", lambda: offers)


def packed(tensors: Mapping[str, Any] = WEIGHTS, **options: Any) -> bytes:
    sink = io.BytesIO()
    cmpk.pack(tensors, sink, recipe=options.pop("recipe", RECIPE), **options)
    return sink.getvalue()


@pytest.mark.parametrize("bits", [1.5, 2, 3, 4.4, 6, 8])
def test_a_file_has_the_size_that_was_asked_for_within_a_hundredth_and_never_more(bits: float) -> None:
    target = int(bits * NUMEL / 8)
    assert 0.99 * target <= len(packed(target_size=target)) <= target
    assert 0.99 * target <= len(packed(target_bpw=bits)) <= bits * NUMEL / 8


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_planned_file_is_always_the_same(jobs: int) -> None:
    assert packed(target_bpw=3, jobs=jobs) == packed(target_bpw=3, jobs=3)


def test_the_planned_file_does_not_depend_on_what_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = packed(target_bpw=3)
    monkeypatch.setattr("cmpk.packer._KEPT_NBYTES", 1 << 14)
    assert packed(target_bpw=3) == expected
    monkeypatch.setattr("cmpk.packing._KEPT_NBYTES", 1 << 14)
    assert packed(target_bpw=3) == expected


def test_the_file_that_was_measured_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Packer):
        n_packed = 0

        def pack(self, *arguments: Any) -> Manifest:
            Counting.n_packed += 1
            return super().pack(*arguments)

    monkeypatch.setattr("cmpk.packing.Packer", Counting)
    packed(target_bpw=3)
    rounds, Counting.n_packed = Counting.n_packed, 0
    monkeypatch.setattr("cmpk.packing._KEPT_NBYTES", 1 << 14)
    packed(target_bpw=3)
    assert Counting.n_packed == rounds + 1


def test_what_the_recipe_protects_is_kept() -> None:
    loaded = cmpk.numpy.load(packed(target_bpw=3))
    assert loaded["a.bias"].tobytes() == WEIGHTS["a.bias"].tobytes()
    assert loaded["ids"].tobytes() == WEIGHTS["ids"].tobytes()
    assert loaded["a"].tobytes() != WEIGHTS["a"].tobytes()


def test_a_larger_file_is_a_better_one() -> None:
    def error(bits: float) -> float:
        report = cmpk.pack(WEIGHTS, io.BytesIO(), recipe=RECIPE, target_bpw=bits)
        assert report.quality is not None
        return report.quality.error

    errors = [error(bits) for bits in (2, 3, 4, 5, 6)]
    assert all(less > 1.5 * more for less, more in itertools.pairwise(errors))


def test_equal_tensors_stay_aliases_and_files_go_along(tmp_path: Path) -> None:
    tensors = {**WEIGHTS, "again": WEIGHTS["b"].copy()}
    model = tmp_path / "model"
    cmpk.pack(tensors, tmp_path / "all.cmpk")
    cmpk.unpack(tmp_path / "all.cmpk", model)
    (model / "vocabulary.txt").write_text("\n".join(f"word {i * i}" for i in range(3000)))
    target = 150_000
    cmpk.pack(model, tmp_path / "m.cmpk", recipe=RECIPE, target_size=target)
    assert 0.99 * target <= (tmp_path / "m.cmpk").stat().st_size <= target
    with cmpk.open(tmp_path / "m.cmpk") as archive:
        archive.verify(deep=True)
        assert archive.target_of("again") == "b"


def test_a_target_beyond_the_finest_steps_is_noted() -> None:
    report = cmpk.pack(WEIGHTS, io.BytesIO(), recipe=RECIPE, target_size=NUMEL * 4)
    assert report.nbytes < NUMEL * 4
    assert report.notes[0] == f"the target is {NUMEL * 4} bytes; the finest steps take {report.nbytes}"


def test_a_target_that_can_not_be_met_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        PassError, match="a file of 5000 bytes can't be made: with the coarsest steps it take"
    ):
        cmpk.pack(WEIGHTS, tmp_path / "a.cmpk", recipe=RECIPE, target_size=5000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0.006, 0.02, 0.1, 0.5])
def test_no_tensor_has_a_larger_error_than_was_allowed(limit: float) -> None:
    with cmpk.Archive(packed(max_error=limit)) as archive:
        errors = {name: archive.entry(name).quality for name in archive}
    assert errors["a.bias"] is None
    for name in ("embedding", "a", "b"):
        quality = errors[name]
        assert quality is not None
        assert 0.9 * limit <= quality.error <= limit


def test_an_error_that_no_step_keeps_leaves_the_tensor_lossless() -> None:
    with cmpk.Archive(packed(max_error=1e-7)) as archive:
        assert {name: archive.entry(name).quality for name in archive} == dict.fromkeys(WEIGHTS)


def test_the_smallest_file_that_scores_enough_is_found() -> None:
    seen: list[float] = []

    def score(tensors: Mapping[str, Any]) -> float:
        error = np.linalg.norm(tensors["a"].numpy() - WEIGHTS["a"]) / np.linalg.norm(WEIGHTS["a"])
        seen.append(1 - error)
        return seen[-1]

    found = packed(evaluate=score, min_score=0.95)
    loaded = cmpk.numpy.load(found)
    error = np.linalg.norm(loaded["a"] - WEIGHTS["a"]) / np.linalg.norm(WEIGHTS["a"])
    assert 0.045 < error <= 0.05
    assert len(seen) < 15
    assert packed(evaluate=score, min_score=0.95) == found
    with pytest.raises(PassError, match="a score of 2 can't be reached: even"):
        packed(evaluate=score, min_score=2)
    with pytest.raises(PassError, match="can't be reached"):
        packed(evaluate=score, min_score=0.95, target_bpw=2)


def test_a_function_to_evaluate_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores.py").write_text("def count(tensors):\n    return len(tensors)\nfive = 5\n")
    monkeypatch.chdir(tmp_path)
    assert packed(evaluate="scores:count", min_score=5)
    for name, problem in [
        ("scores:sum", "names no function"),
        ("score:count", "names no function"),
        ("scores", "names no function"),
        ("scores:five", "is not a function"),
    ]:
        with pytest.raises(SourceError, match=problem):
            packed(evaluate=name, min_score=5)
    with pytest.raises(SourceError, match="must be a number, not 'good'"):
        packed(evaluate=lambda tensors: "good", min_score=5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"target_size": 1000, "target_bpw": 2.0}, "give one of"),
        ({"target_size": 0}, "must be a positive number, not 0"),
        ({"target_bpw": -1.0}, "must be a positive number"),
        ({"max_error": float("nan")}, "must be a positive number"),
        ({"min_score": 1.0}, "go together"),
        ({"evaluate": len}, "go together"),
        ({"evaluate": len, "min_score": 1.0, "max_error": 0.1}, "not both"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(PassError, match=problem):
        packed(**options)


def test_a_recipe_without_steps_can_not_be_planned() -> None:
    with pytest.raises(RecipeError, match="recipe 'lossless' has no pass 'quantize' whose steps"):
        packed(recipe="lossless", target_bpw=4)


def test_a_model_that_can_be_read_only_once_can_not_be_planned() -> None:
    with pytest.raises(SourceError, match="read more than once"):
        cmpk.pack(StateDictSource(WEIGHTS), io.BytesIO(), recipe=RECIPE, target_bpw=4)


def test_a_model_without_matrices_can_not_be_planned() -> None:
    with pytest.raises(PassError, match="no tensors for pass 'quantize'"):
        packed({"ids": WEIGHTS["ids"]}, target_bpw=4)


def curve(numel: int) -> RateCurve:
    return RateCurve(STEPS, np.maximum(8 - np.log2(STEPS * 64), 0.1) * numel / 8, STEPS**2 / 12)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_estimates_that_are_wrong_are_corrected(factor: float) -> None:
    curves = {"a": curve(10_000), "b": curve(90_000)}
    rounds = []

    def measure(steps: Mapping[str, float]) -> Sizes:
        rounds.append(steps)
        tensors = {name: int(factor * curves[name].nbytes(step)) for name, step in steps.items()}
        return Sizes(3000 + sum(tensors.values()), tensors)

    plan = meet(curves, 0, 40_000, measure)
    assert 39_600 <= plan.nbytes <= 40_000
    assert measure(plan.steps).nbytes == plan.nbytes
    assert len(rounds) <= 5


def test_a_search_ends_near_the_smallest_good_target() -> None:
    def trial(target: int) -> tuple[int, float]:
        return target - 5, float(target >= 40_000)

    target, score = smallest_good(trial, 1000, 10**6, 1.0)
    assert 40_000 <= target <= 40_800
    assert score == 1


def test_a_budget_is_bytes_or_bits() -> None:
    assert Budget(nbytes=7).nbytes_for(100) == 7
    assert Budget(bits=4.4).nbytes_for(100) == 55

"""Rules and chains of passes: which passes a tensor goes through, and what each of them gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from cmpk import builtins
from cmpk.chain import Chain, Outcome
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import PassError, RecipeError, UnknownIdError
from cmpk.hookspecs import hookimpl
from cmpk.passes import Pass, Planned, Split
from cmpk.recipe import PassUse, Recipe, Rule, load_recipe
from cmpk.registry import Origin, Registry

WEIGHTS = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
PART = Part(TensorSpec("F32", (64, 128)), WEIGHTS.reshape(-1).view(np.uint8))
IDS = Part(TensorSpec("I64", (16,)), np.arange(16).view(np.uint8))


class Scale(Pass):
    """Values times ``by``; takes no integers."""

    id = "scale"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Any = None
    ) -> Planned | None:
        if part.spec.dtype != "F32":
            return None
        by = np.float32(options["by"])  # type: ignore[arg-type]
        return Part(part.spec, (part.data.view(np.float32) * by).view(np.uint8))


class Spy(Pass):
    """Keeps what it was called with, and leaves every tensor alone."""

    id = "spy"
    seen: ClassVar[list[Any]] = []

    def apply(self, name: str, part: Part, options: Mapping[str, object], statistics: Any = None) -> None:
        self.seen.append(statistics)


class Old(Pass):
    """Of a time without statistics."""

    id = "old"

    def apply(self, name: str, part: Part, options: Mapping[str, object]) -> Planned:  # type: ignore[override]
        return Part(part.spec, part.data & 254)


def chain_of(recipe: Recipe) -> Chain:
    plugin = SimpleNamespace(cmpk_passes=hookimpl(lambda: [Scale(), Spy(), Old()]))
    return Chain(recipe, Registry([(Origin("cmpk", "1"), builtins), (Origin("mine", "2"), plugin)]))


def read(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "mine.toml").write_text(text)
    return load_recipe(tmp_path / "mine.toml")


def outcome_of(recipe: Recipe, name: str = "w", part: Part = PART, statistics: Any = None) -> Outcome:
    return chain_of(recipe).apply(name, part, statistics)


def factor(outcome: Outcome) -> float:
    return float(outcome.part.data.view(np.float32)[0] / WEIGHTS[0, 0])


def test_each_pass_gets_what_the_one_before_it_made_and_a_split_ends_the_chain() -> None:
    uses = [PassUse("scale", {"by": 2}), PassUse("scale", {"by": 4})]
    outcome = outcome_of(Recipe("r", rules=(Rule((*uses, PassUse("split_floats"), *uses)),)))
    assert factor(outcome) == 8
    assert isinstance(outcome.planned, Split)
    assert outcome.is_exact
    assert outcome.pass_id == "split_floats"
    assert outcome.source.data.tobytes() == PART.data.tobytes()


def test_a_chain_without_a_split_leaves_the_tensor_to_the_codecs() -> None:
    outcome = outcome_of(Recipe("r", rules=(Rule((PassUse("scale", {"by": 2}),)),)))
    assert outcome.planned is outcome.part
    assert factor(outcome) == 2


def test_a_pass_that_leaves_a_tensor_alone_is_reported_unless_it_is_lossless() -> None:
    rule = Rule((PassUse("scale", {"by": 2}), PassUse("spy"), PassUse("split_floats")))
    assert outcome_of(Recipe("r", rules=(rule,)), part=IDS).left_alone == ("scale", "spy")
    assert outcome_of(Recipe("r", rules=(rule,))).left_alone == ("spy",)


def test_passes_get_the_statistics_and_those_that_do_not_know_of_any_go_on_working() -> None:
    statistics = SimpleNamespace(kind="linear")
    Spy.seen.clear()
    rule = Rule((PassUse("spy"), PassUse("old")))
    outcome = outcome_of(Recipe("r", rules=(rule,)), statistics=statistics)
    assert Spy.seen == [statistics]
    assert outcome.part.data.tobytes() == (PART.data & 254).tobytes()
    assert outcome.plugins == ("mine 2",)


def test_a_pass_can_not_change_what_it_was_given() -> None:
    outcome = outcome_of(Recipe("r", rules=(Rule((PassUse("spy"),)),)))
    assert not outcome.part.data.flags.writeable
    assert PART.data.flags.writeable


def test_a_pass_must_be_installed() -> None:
    with pytest.raises(UnknownIdError, match="quantise"):
        chain_of(Recipe("r", rules=(Rule((PassUse("quantise"),)),)))


def test_a_pass_that_makes_another_tensor_is_refused() -> None:
    class Cut(Pass):
        id = "cut"

        def apply(
            self, name: str, part: Part, options: Mapping[str, object], statistics: Any = None
        ) -> Planned:
            return Part(TensorSpec("F32", (1,)), part.data[:4])

    plugin = SimpleNamespace(cmpk_passes=hookimpl(lambda: [Cut()]))
    offers = Registry([(Origin("cmpk", "1"), builtins), (Origin("mine", "2"), plugin)])
    chain = Chain(Recipe("r", rules=(Rule((PassUse("cut"),)),)), offers)
    with pytest.raises(PassError, match=r"pass 'cut' made of 'w' neither a tensor of its type and shape"):
        chain.apply("w", PART)


def test_a_lossless_pass_that_changes_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scale, "is_lossless", True)
    with pytest.raises(PassError, match="pass 'scale' says that it is lossless, and changes 'w'"):
        outcome_of(Recipe("r", rules=(Rule((PassUse("scale", {"by": 2}),)),)))


RULES = """
[[rules]]
names = ["*norm*", "*.bias"]
passes = []

[[rules]]
dtypes = ["BF16", "F16"]
passes = [{ id = "scale", by = 3 }]

[[rules]]
modules = ["Embedding"]
passes = [{ id = "scale", by = 5 }, { id = "split_floats", max_groups = 2 }]

[[rules]]
min_rank = 2
max_rank = 2
min_numel = 1024
passes = [{ id = "scale", by = 2 }]
"""


class TestRules:
    def test_the_first_that_matches_decides(self, tmp_path: Path) -> None:
        recipe = read(tmp_path, RULES)
        assert factor(outcome_of(recipe, "encoder.weight")) == 2
        assert factor(outcome_of(recipe, "encoder.norm.weight")) == 1
        assert factor(outcome_of(recipe, "encoder.bias")) == 1
        assert factor(outcome_of(recipe, "encoder.bias_of")) == 2
        assert factor(outcome_of(recipe, statistics=SimpleNamespace(kind="embedding"))) == 5
        assert factor(outcome_of(recipe, statistics=SimpleNamespace(kind="linear"))) == 2

    def test_limits_of_rank_and_size_hold(self, tmp_path: Path) -> None:
        recipe = read(tmp_path, RULES)
        for shape in [(8192,), (8, 8, 128)]:
            assert factor(outcome_of(recipe, part=Part(TensorSpec("F32", shape), PART.data))) == 1
        small = Part(TensorSpec("F32", (1, 1023)), PART.data[: 4 * 1023])
        assert factor(outcome_of(recipe, part=small)) == 1

    def test_a_chain_ends_losslessly_unless_it_says_how_or_is_empty(self, tmp_path: Path) -> None:
        recipe = read(tmp_path, RULES)
        assert [[use.id for use in rule.passes] for rule in recipe.rules] == [
            [],
            ["scale", "split_floats"],
            ["scale", "split_floats"],
            ["scale", "split_floats"],
            ["split_floats"],
        ]
        assert recipe.rules[2].passes[1].options == {"max_groups": 2}

    def test_the_short_form_is_the_last_rule(self, tmp_path: Path) -> None:
        text = '[[rules]]\nnames = ["a"]\npasses = []\n[passes.scale]\nby = 2\n'
        recipe = read(tmp_path, text)
        assert factor(outcome_of(recipe, "a")) == 1
        assert factor(outcome_of(recipe, "b")) == 2
        assert len(recipe.rules) == 2

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("rules = 1", "recipe 'mine': rules must not be 1"),
            ("rules = [1]", "recipe 'mine', rule 1 must be a table"),
            ("[[rules]]\nnames = []\npasses = []", "rule 1: names must be a list of strings"),
            ("[[rules]]\nnames = [1]\npasses = []", "rule 1: names must be a list of strings"),
            ("[[rules]]\nnames = 'a'\npasses = []", "rule 1: names must not be 'a'"),
            ("[[rules]]\npasses = []\n[[rules]]\nname = []", "rule 2 has an unknown entry 'name'"),
            ("[[rules]]\nmin_rank = 1", "rule 1 has no passes"),
            ("[[rules]]\nmin_rank = -1\npasses = []", "min_rank is -1"),
            ("[[rules]]\nmin_rank = true\npasses = []", "min_rank must not be True"),
            ("[[rules]]\ndtypes = ['float']\npasses = []", "there is no dtype 'float'; there are BOOL"),
            ("[[rules]]\nmodules = ['Dense']\npasses = []", "there is no module 'dense'; there are linear"),
            ("[[rules]]\npasses = ['scale']", "'scale' names no pass; give a table such as"),
            ("[[rules]]\npasses = [{ by = 2 }]", "names no pass"),
            ("[[rules]]\npasses = [{ id = 2 }]", "names no pass"),
        ],
    )
    def test_what_is_wrong_in_one_is_said(self, tmp_path: Path, text: str, problem: str) -> None:
        with pytest.raises(RecipeError) as caught:
            read(tmp_path, text)
        assert problem in str(caught.value)

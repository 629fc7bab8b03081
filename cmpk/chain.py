"""The passes of a recipe's rules, one after another, on one tensor."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import PassError, blame
from cmpk.kernels.interface import U8
from cmpk.passes.base import Pass, Planned, Split, Statistics
from cmpk.recipe import PassUse, Recipe
from cmpk.registry import Registry

__all__ = ["Chain", "Outcome", "read_only"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the passes made of a tensor.

    Attributes
    ----------
    source : Part
        The tensor as it came.
    part : Part
        As the passes that change values left it; ``source`` if none did.
    planned : Part or Split
        How it is stored; ``part`` if no pass said.
    is_exact : bool
        Whether ``planned`` is sure to decode to ``part``.
    pass_id, plugin : str
        The pass that said how it is stored, and the plugin that offers it; empty if there is none.
    plugins : tuple of str
        Those that offer passes which had a hand in it.
    left_alone : tuple of str
        The passes that were to change it and did not.
    """

    source: Part
    part: Part
    planned: Planned
    is_exact: bool = True
    pass_id: str = ""
    plugin: str = ""
    plugins: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Step:
    item: Pass
    options: Mapping[str, object]
    plugin: str
    takes_statistics: bool


@dataclass(frozen=True, slots=True)
class _OfRule:
    """The tensors whose rule it is, as often as they are asked for; before that nothing is read."""

    chain: Chain
    index: int
    tensors: Callable[[], Iterator[tuple[str, Part, Statistics | None]]]

    def __iter__(self) -> Iterator[tuple[str, Part, Statistics | None]]:
        return self.chain.tensors_of(self.index, self.tensors())


class Chain:
    """A recipe's passes at work; may be used by several threads.

    Parameters
    ----------
    recipe : Recipe
    offers : Registry

    Raises
    ------
    UnknownIdError
        If a pass is not installed.
    """

    def __init__(self, recipe: Recipe, offers: Registry) -> None:
        self._rules = [(rule, [_step(use, offers) for use in rule.passes]) for rule in recipe.rules]

    @property
    def is_lossless(self) -> bool:
        """Whether no pass can change a tensor."""
        return all(step.item.is_lossless for _, steps in self._rules for step in steps)

    def settle(self, tensors: Callable[[], Iterator[tuple[str, Part, Statistics | None]]]) -> None:
        """Let passes look at all of their tensors before the first is packed; see `Pass.settle`.

        Parameters
        ----------
        tensors : function
            Reads the whole model; called by passes that need it only.
        """
        for index, (_, steps) in enumerate(self._rules):
            for at, step in enumerate(steps):
                if type(step.item).settle is not Pass.settle:
                    with blame(f"pass {step.item.id!r}", step.plugin):
                        options = step.item.settle(_OfRule(self, index, tensors), step.options)
                    steps[at] = dataclasses.replace(step, options=options)

    def tensors_of(
        self, index: int, tensors: Iterable[tuple[str, Part, Statistics | None]]
    ) -> Iterator[tuple[str, Part, Statistics | None]]:
        """Those of some tensors whose rule is the one of this number."""
        for name, part, statistics in tensors:
            if self._rule_for(name, part.spec, statistics) == index:
                yield name, part, statistics

    def before(self, name: str, source: Part, statistics: Statistics | None, pass_id: str) -> Part | None:
        """A tensor as the passes before a certain one leave it; None if it is not sent there."""
        steps = self._steps_for(name, source.spec, statistics)
        ids = [step.item.id for step in steps]
        if pass_id not in ids:
            return None
        outcome = _sent_through(steps[: ids.index(pass_id)], name, source, statistics)
        return None if isinstance(outcome.planned, Split) else outcome.part

    def lossless(
        self, name: str, spec: TensorSpec, part: Part, statistics: Statistics | None = None
    ) -> Planned:
        """What the lossless passes of a tensor's rule make of a part of it."""
        steps = self._steps_for(name, spec, statistics)
        return _sent_through(
            [step for step in steps if step.item.is_lossless], name, part, statistics
        ).planned

    def apply(
        self,
        name: str,
        source: Part,
        statistics: Statistics | None = None,
        options: Mapping[str, Mapping[str, object] | None] | None = None,
    ) -> Outcome:
        """Send a tensor through the passes of the first rule that matches it.

        Parameters
        ----------
        name : str
        source : Part
        statistics : Statistics, optional
            What calibration knows of it.
        options : mapping of str to mapping or None
            By pass, options in place of the recipe's; None leaves the pass out.

        Raises
        ------
        PassError
            If a pass makes a tensor of another type, shape or size.
        PluginError
            If a plugin's pass fails.
        """
        steps = self._steps_for(name, source.spec, statistics)
        for pass_id, given in (options or {}).items():
            steps = [step for step in steps if step.item.id != pass_id or given is not None]
            steps = [
                dataclasses.replace(step, options={**step.options, **(given or {})})
                if step.item.id == pass_id
                else step
                for step in steps
            ]
        return _sent_through(steps, name, source, statistics)

    def _rule_for(self, name: str, spec: TensorSpec, statistics: Statistics | None) -> int | None:
        module = statistics.kind if statistics else ""
        matching = (i for i, (rule, _) in enumerate(self._rules) if rule.matches(name, spec, module))
        return next(matching, None)

    def _steps_for(self, name: str, spec: TensorSpec, statistics: Statistics | None) -> list[_Step]:
        index = self._rule_for(name, spec, statistics)
        return [] if index is None else self._rules[index][1]


def read_only(data: U8) -> U8:
    """The same bytes, safe from passes and codecs that would work in place."""
    view = data.view()
    view.flags.writeable = False
    return view


def _step(use: PassUse, offers: Registry) -> _Step:
    item, plugin = use.item, ""
    if item is None:
        found = offers.registered("passes", use.id)
        item, plugin = found.item, found.plugin
    parameters = inspect.signature(item.apply).parameters.values()
    takes_statistics = any(p.name == "statistics" or p.kind is p.VAR_KEYWORD for p in parameters)
    return _Step(item, use.options, plugin, takes_statistics)


def _sent_through(steps: Sequence[_Step], name: str, source: Part, statistics: Statistics | None) -> Outcome:
    part = source = Part(source.spec, read_only(source.data))
    plugins: list[str] = []
    left_alone: list[str] = []
    for step in steps:
        pass_id = step.item.id
        with blame(f"pass {pass_id!r}", step.plugin):
            found = _applied(step, name, part, statistics)
        if found is None:
            if not step.item.is_lossless:
                left_alone.append(pass_id)
            continue
        if step.plugin:
            plugins.append(step.plugin)
        if isinstance(found, Split):
            is_exact = step.item.is_lossless
            return Outcome(
                source, part, found, is_exact, pass_id, step.plugin, tuple(plugins), tuple(left_alone)
            )
        made = _checked(found, part, name, pass_id)
        if step.item.is_lossless and made.data.tobytes() != part.data.tobytes():
            raise PassError(f"pass {pass_id!r} says that it is lossless, and changes {name!r}")
        part = made
    return Outcome(source, part, part, plugins=tuple(plugins), left_alone=tuple(left_alone))


def _applied(step: _Step, name: str, part: Part, statistics: Statistics | None) -> Planned | None:
    if step.takes_statistics:
        return step.item.apply(name, part, step.options, statistics=statistics)
    return step.item.apply(name, part, step.options)


def _checked(made: object, given: Part, name: str, pass_id: str) -> Part:
    """A part that a pass made, if it can stand in the place of the one that it was given."""
    if not isinstance(made, Part) or made.spec != given.spec or len(made.data) != given.spec.nbytes:
        raise PassError(
            f"pass {pass_id!r} made of {name!r} neither a tensor of its type and shape nor a split"
        )
    return Part(made.spec, read_only(made.data), made.is_memoryless)

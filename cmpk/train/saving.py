"""From a trained model to an archive that holds exactly the values that it was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from cmpk.encodings.base import Part
from cmpk.errors import PassError
from cmpk.format import MemorySink, atomic_file
from cmpk.packing import PackReport, pack
from cmpk.passes.base import Pass, Planned, Statistics
from cmpk.recipe import LOSSLESS, PassUse, Recipe, Rule, load_recipe
from cmpk.sources import PathLike
from cmpk.train.parametrized import parametrizations_of, trained_state

__all__ = ["Storable", "packed", "save"]


@runtime_checkable
class Storable(Protocol):
    """A parametrization that knows how the tensor which it makes is stored.

    Those that make few values, such as `Shared`, need not: packing finds these by itself.
    """

    def planned(self, part: Part) -> Planned | None:
        """An encoding of the tensor that decodes to exactly these bytes; None if there is none.

        Parameters
        ----------
        part : Part
            The tensor as the model uses it in evaluation: type, shape and bytes.
        """


class _AsTrained(Pass):
    """Stores tensors as their parametrizations say. Decoding is checked, like that of any lossy pass."""

    id: ClassVar[str] = "trained"

    def __init__(self, storable: Mapping[str, list[Storable]]) -> None:
        self._storable = storable

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        for each in reversed(self._storable.get(name, [])):
            planned = each.planned(part)
            if planned is not None:
                return planned
        return None


def packed(
    model: nn.Module,
    *,
    recipe: PathLike | Recipe = "lossless-max",
    metadata: Mapping[str, str] | None = None,
    jobs: int | None = None,
) -> tuple[bytes, PackReport]:
    """The bytes of the file that `save` would write, and the report on it."""
    base = load_recipe(recipe)
    state = trained_state(model)
    storable = {name: parametrizations_of(model, name, nn.Module) for name in state}
    as_trained = PassUse(
        _AsTrained.id,
        item=_AsTrained(
            {name: [each for each in found if isinstance(each, Storable)] for name, found in storable.items()}
        ),
    )
    rules = [dataclasses.replace(rule, passes=(as_trained, *rule.passes)) for rule in base.rules]
    rules.append(Rule(passes=(as_trained, LOSSLESS)))
    sink = MemorySink()
    report = pack(
        state,
        sink,
        recipe=dataclasses.replace(base, name="trained", rules=tuple(rules)),
        metadata=metadata,
        jobs=jobs,
    )
    if report.quality is not None:
        raise PassError(
            "the model would not be stored as it was trained: a pass of the recipe, or the plan of a "
            f"parametrization, changes values (relative error {report.quality.error:.3g})"
        )
    notes = [note for note in report.notes if not note.startswith(f"pass {_AsTrained.id!r} can't")]
    return sink.getvalue(), dataclasses.replace(report, notes=notes)


def save(
    model: nn.Module,
    path: PathLike,
    *,
    recipe: PathLike | Recipe = "lossless-max",
    metadata: Mapping[str, str] | None = None,
    jobs: int | None = None,
) -> PackReport:
    """Write a trained model to a ``.cmpk`` file; no value of it changes.

    Parametrized tensors are stored as the model uses them in evaluation, under the names that they have
    without parametrizations: the file loads into the module as it was before. An existing file is
    replaced, all at once.

    Parameters
    ----------
    model : torch.nn.Module
    path : path
    recipe : str, path or Recipe
        A lossless one; its codecs, and its passes for tensors that do not say how they are stored.
    metadata : mapping of str to str, optional
    jobs : int, optional
        Threads; all cores by default.

    Returns
    -------
    PackReport

    Raises
    ------
    PassError
        If a value would change.
    SourceError, RecipeError, DestinationError
    """
    data, report = packed(model, recipe=recipe, metadata=metadata, jobs=jobs)
    with atomic_file(Path(path), overwrite=True) as file:
        file.write(memoryview(data))
    return report

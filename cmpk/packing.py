"""Models → files: `cmpk.pack`."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cmpk.archive import Archive
from cmpk.calibration import Calibration, load_calibration
from cmpk.dtypes import TensorSpec, to_torch
from cmpk.errors import PassError, RecipeError, SourceError
from cmpk.format import ByteSink, ContainerWriter, Manifest, MemorySink, QualitySummary, atomic_file
from cmpk.format.quality import summary_of
from cmpk.functions import function_of
from cmpk.importers.base import ModelSource
from cmpk.importers.state_dict import checked_metadata
from cmpk.indexing import default_threads
from cmpk.packer import PLANNED_PASS, Packer, Progress, Survey
from cmpk.planner import Budget, Plan, Sizes, meet, smallest_good
from cmpk.recipe import Recipe, load_recipe
from cmpk.sources import PathLike, Source, open_source

if TYPE_CHECKING:
    import torch

__all__ = ["Evaluate", "PackReport", "Progress", "pack"]

Evaluate = Callable[[Mapping[str, "torch.Tensor"]], float]
"""Gives the score of a model's tensors, as `cmpk.torch.load_file` loads them; larger is better."""

_PLANNED_RECIPE = "balanced"
"""Where a budget and no recipe is given."""

_KEPT_NBYTES: Final = 128 << 20
"""A file that was measured is kept if it has at most so many bytes: it may be what is wanted."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """What packing made of a model.

    Attributes
    ----------
    source_nbytes, nbytes : int
        Bytes read and written.
    n_tensors, n_files : int
    sha256 : str
        The archive's name: digest of its manifest.
    seconds : float
    notes : list of str
        What a user should know about how the source was taken, and what passes left alone.
    quality : QualitySummary or None
        What the lossy tensors have kept; None if there are none.
    recipe : str
        The name of the recipe.
    """

    source_nbytes: int
    nbytes: int
    n_tensors: int
    n_files: int
    sha256: str
    seconds: float
    notes: list[str]
    quality: QualitySummary | None = None
    recipe: str = ""


def pack(
    src: Source,
    dst: PathLike | ByteSink,
    *,
    recipe: PathLike | Recipe | None = None,
    jobs: int | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    force: bool = False,
    target_size: int | None = None,
    target_bpw: float | None = None,
    max_error: float | None = None,
    calibration: PathLike | Calibration | None = None,
    evaluate: Evaluate | str | None = None,
    min_score: float | None = None,
) -> PackReport:
    """Pack a model.

    Parameters
    ----------
    src : path, mapping of str to tensor, or ModelSource
        A model file or directory, or tensors in memory.
    dst : path or binary file
        The ``.cmpk`` file; written under another name and renamed when complete. A binary file is
        only ever appended to, so a pipe will do.
    recipe : str, path or Recipe, optional
        A name (``cmpk.recipe.builtin_names``) or a TOML file. By default ``lossless``; with a budget,
        ``balanced``, whose pass `quantize` gets the steps that meet it.
    jobs : int, optional
        Threads; all cores by default. The file does not depend on it.
    metadata : mapping of str to str, optional
        Kept in the file; by default the source's own.
    progress : function, optional
        Called with bytes done and bytes in all. To meet a target the model is read several times, and
        each time the bytes count from 0.
    force : bool
        Overwrite ``dst`` if it exists.
    target_size : int, optional
        Bytes of the whole file: it is at most 1% smaller, and never larger.
    target_bpw : float, optional
        The same in bits of the whole file for each element of its tensors.
    max_error : float, optional
        Largest relative error of any tensor; each is stored as small as that allows.
    calibration : path or Calibration, optional
        What `cmpk.calibrate` found: which errors matter.
    evaluate : function, or str, optional
        Of the tensors of a model, by their names, giving its score, the larger the better; or
        ``"module:function"``. The smallest file is looked for whose score is at least ``min_score``;
        with a target, it is at most of that size.
    min_score : float, optional
        Goes with ``evaluate``.

    Returns
    -------
    PackReport

    Raises
    ------
    SourceError, RecipeError, DestinationError
    UnknownIdError
        If the recipe names a codec or pass that is not installed.
    PassError
        If a budget can't be met, or is none.
    PluginError
        If a plugin's codec or pass fails, or makes what can't be read back.
    """
    started = time.perf_counter()
    metadata = None if metadata is None else checked_metadata(metadata)
    budget = _budget(target_size, target_bpw, max_error)
    if (evaluate is None) != (min_score is None):
        raise PassError("evaluate and min_score go together: which score, and how much of it")
    if evaluate is not None and max_error is not None:
        raise PassError("give a largest error or a function to evaluate, not both")
    is_planned = budget is not None or evaluate is not None
    chosen = load_recipe(recipe if recipe is not None else _PLANNED_RECIPE if is_planned else "lossless")
    if is_planned and not any(use.id == PLANNED_PASS for rule in chosen.rules for use in rule.passes):
        raise RecipeError(f"recipe {chosen.name!r} has no pass {PLANNED_PASS!r} whose steps could be planned")
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = load_calibration(calibration)
    packer = Packer(chosen, jobs or default_threads(), calibration, max_error)
    work = _Work(src, packer, metadata, progress)
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        # Opened before it is planned, so that what can't be written is found out first.
        sink = stack.enter_context(_opened(dst, force))
        packer.settle(work.reopen)
        steps: Mapping[str, float] | None = None
        if evaluate is not None and min_score is not None:
            plan, notes = work.evaluated(
                function_of(evaluate) if isinstance(evaluate, str) else evaluate, min_score, budget
            )
            steps = plan.steps
        elif budget is not None and budget.error is None:
            plan, notes = work.planned(budget)
            steps = plan.steps
        written = work.write(sink, steps)
    manifest = written.manifest
    return PackReport(
        source_nbytes=written.source_nbytes,
        nbytes=written.nbytes,
        n_tensors=len(manifest.tensors),
        n_files=len(manifest.files),
        sha256=written.sha256,
        seconds=time.perf_counter() - started,
        notes=[*written.source_notes, *notes, *written.notes],
        quality=summary_of(
            (entry.name, TensorSpec(entry.dtype, entry.shape).numel, entry.quality)
            for entry in manifest.tensors
        ),
        recipe=chosen.name,
    )


@dataclass(frozen=True, slots=True)
class _Written:
    """A file that was written, and what there is to say of it."""

    manifest: Manifest
    sha256: str
    nbytes: int
    source_nbytes: int
    source_notes: list[str]
    notes: list[str]


class _Work:
    """One model, and all that is done to pack it."""

    def __init__(
        self, src: Source, packer: Packer, metadata: Mapping[str, str] | None, progress: Progress | None
    ) -> None:
        self._packer = packer
        self._src = src
        self._metadata = metadata
        self._progress = progress
        self._survey: Survey | None = None
        self._measured: tuple[Mapping[str, float], MemorySink, _Written] | None = None

    def reopen(self) -> ModelSource:
        """The model once more, from its first tensor on."""
        if isinstance(self._src, ModelSource):
            raise SourceError("the model must be read more than once to be planned: give a path or tensors")
        return open_source(self._src, self._packer.registry)

    def write(self, sink: ByteSink, steps: Mapping[str, float] | None) -> _Written:
        """Write the whole file: the one that was measured last, if it is that."""
        if self._measured is not None:
            of_steps, kept, written = self._measured
            if of_steps == steps and kept.is_whole:
                kept.copy_to(sink)
                return written
        return self._packed(sink, steps)

    def survey(self) -> Survey:
        """What can be planned."""
        if self._survey is None:
            with contextlib.closing(self.reopen()) as source:
                self._survey = self._packer.survey(source, self._progress)
        return self._survey

    def measure(self, steps: Mapping[str, float]) -> Sizes:
        """The sizes of the file that steps make."""
        self._measured = None
        of_all, sink = self._for_all(steps), MemorySink(_KEPT_NBYTES)
        written = self._packed(sink, of_all)
        self._measured = of_all, sink, written
        sizes = dict.fromkeys(steps, 0)
        for name, holder in self.survey().same_as.items():
            sizes[holder] += self._packer.nbytes_of.get(name, 0)
        return Sizes(written.nbytes, sizes)

    def _packed(self, sink: ByteSink, steps: Mapping[str, float] | None) -> _Written:
        writer = ContainerWriter(sink)
        with contextlib.closing(open_source(self._src, self._packer.registry)) as source:
            manifest = self._packer.pack(source, writer, self._progress, steps)
            if self._metadata is not None:
                manifest = msgspec.structs.replace(manifest, metadata=dict(self._metadata))
            sha256 = writer.finish(manifest).manifest_sha256.hex()
            return _Written(manifest, sha256, writer.nbytes, source.nbytes, source.notes, self._packer.notes)

    def planned(self, budget: Budget) -> tuple[Plan, list[str]]:
        """Steps that meet a size, and what there is to say of them."""
        survey = self.survey()
        target = budget.nbytes_for(survey.numel)
        if not survey.curves:
            raise PassError(f"the model has no tensors for pass {PLANNED_PASS!r} that could be planned")
        plan = meet(survey.curves, survey.others_nbytes, target, self.measure)
        notes = []
        if plan.nbytes < 0.99 * target:
            notes.append(f"the target is {target} bytes; the finest steps take {plan.nbytes}")
        return Plan(self._for_all(plan.steps), plan.nbytes), notes

    def evaluated(
        self, score_of: Evaluate, min_score: float, budget: Budget | None
    ) -> tuple[Plan, list[str]]:
        """Steps of the smallest file that is good enough."""
        survey = self.survey()
        least = survey.others_nbytes + int(sum(curve.sizes[-1] for curve in survey.curves.values()))
        most = survey.others_nbytes + int(sum(curve.sizes[0] for curve in survey.curves.values()))
        if budget is not None:
            most = min(most, budget.nbytes_for(survey.numel))
        # Estimates, so a little to spare: a search must not begin below what can be made.
        least = min(int(1.1 * least), most)

        def trial(target: int) -> tuple[int, float]:
            try:
                plan, _ = self.planned(Budget(nbytes=target))
            except PassError:  # smaller than any file
                return target, -math.inf
            sink = MemorySink()
            written = self.write(sink, plan.steps)
            return written.nbytes, _score(score_of, sink.getvalue())

        target, score = smallest_good(trial, least, most, min_score)
        plan, _ = self.planned(Budget(nbytes=target))
        return plan, [f"the smallest file found with a score of at least {min_score} scores {score}"]

    def _for_all(self, steps: Mapping[str, float]) -> dict[str, float]:
        """The steps of all tensors, those included that equal one that was planned."""
        same_as = self.survey().same_as
        return {name: steps[holder] for name, holder in same_as.items() if holder in steps}


@contextlib.contextmanager
def _opened(dst: PathLike | ByteSink, force: bool) -> Iterator[ByteSink]:
    if isinstance(dst, str | os.PathLike):
        with atomic_file(Path(dst), overwrite=force) as file:
            yield file
    else:
        yield dst


def _budget(nbytes: int | None, bits: float | None, error: float | None) -> Budget | None:
    return None if nbytes is None and bits is None and error is None else Budget(nbytes, bits, error)


def _score(score_of: Evaluate, data: bytes) -> float:
    import torch

    with Archive(data) as archive:
        tensors = {}
        for name in archive:
            dtype, shape = archive.spec(name)
            empty = torch.empty(shape, dtype=to_torch(dtype))
            archive.read_into({name: empty.view(-1).view(torch.uint8).numpy()}, default_threads())
            tensors[name] = empty
    score = score_of(tensors)
    try:
        return float(score)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SourceError(f"the score of a model must be a number, not {score!r}") from error

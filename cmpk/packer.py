"""A recipe at work on a model: each tensor through its passes and codecs, and all of it in a file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import blake3
import msgspec

from cmpk import kernels
from cmpk.chain import Chain, Outcome, read_only
from cmpk.coding import Coded, CodedBranch, Coder, decoded, is_believed, node_of, stored_nbytes, uncoded
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import blame
from cmpk.format import ContainerWriter, FileEntry, InputRanges, Manifest, Node, Quality, TensorEntry
from cmpk.format.layout import FOOTER_NBYTES, MAX_EXPANSION, PREAMBLE_NBYTES
from cmpk.importers.base import ModelSource, SourceFile, SourceTensor, storable
from cmpk.kernels.interface import U8
from cmpk.parallel import in_order
from cmpk.quality import error_of, quality_of
from cmpk.rate import RateCurve, tensor_rate
from cmpk.readback import check_readable, naming
from cmpk.recipe import Recipe
from cmpk.registry import install_kernels, registry
from cmpk.search import largest_step
from cmpk.sparsity import frequent_value
from cmpk.version import __version__

if TYPE_CHECKING:
    from cmpk.calibration import Calibration, TensorStatistics

__all__ = ["PLANNED_PASS", "Packer", "Progress", "Survey"]

Progress = Callable[[int, int], None]
"""Called with the bytes of the source done and in all."""

PLANNED_PASS: Final = "quantize"
"""The pass whose option ``step`` is planned."""

_MAX_NAMES: Final = 3
"""Tensors that a note names."""

_MIN_SHARE_OF_ZEROS: Final = 1 / 16
"""Where a tensor has fewer, leaving them out is not tried."""

_ENTRY_NBYTES: Final = 90
"""What a tensor takes in the manifest, when that is compressed."""

_KEPT_NBYTES: Final = 128 << 20
"""Streams that are kept from one look at the model to the next may have this many bytes in all."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a model looks like before it is planned.

    Attributes
    ----------
    curves : dict of str to RateCurve
        Of each tensor that can be planned; of equal ones, the first.
    same_as : dict of str to str
        For every tensor that can be planned, the one that has the curve.
    others_nbytes : int
        What everything else takes, about.
    numel : int
        Elements of all tensors; tied ones count once.
    """

    curves: dict[str, RateCurve]
    same_as: dict[str, str]
    others_nbytes: int
    numel: int


@dataclass(frozen=True, slots=True)
class _Packed:
    """A tensor that is ready to be written.

    Attributes
    ----------
    coded : Coded
    source_digest, digest : str
        BLAKE3 of its bytes as they came, and as they will be decoded.
    quality : Quality or None
        None if these are the same.
    left_alone : tuple of str
        Passes that were to change it and did not.
    """

    coded: Coded
    source_digest: str
    digest: str
    quality: Quality | None
    left_alone: tuple[str, ...] = ()


class Packer:
    """A recipe at work.

    Parameters
    ----------
    recipe : Recipe
    jobs : int
        Threads.
    calibration : Calibration, optional
    max_error : float, optional
        Choose steps with which no tensor's relative error is larger.

    Attributes
    ----------
    notes : list of str
        What a user should know of the last model that was packed.
    nbytes_of : dict of str to int
        What the streams of its tensors take; those of equal ones count once, for the first.
    """

    def __init__(
        self,
        recipe: Recipe,
        jobs: int,
        calibration: Calibration | None = None,
        max_error: float | None = None,
    ) -> None:
        install_kernels()
        # Before a file is begun: an import of native code may lose the exit that a signal asks for.
        kernels.active()
        self.registry = registry()
        self.notes: list[str] = []
        self.nbytes_of: dict[str, int] = {}
        self._recipe = recipe
        self._jobs = max(1, jobs)
        self._calibration = calibration
        self._max_error = max_error
        self._coder = Coder(recipe, self.registry)
        self._chain = Chain(recipe, self.registry)
        self._steps: Mapping[str, float] = {}
        self._kept: dict[str, tuple[float | None, _Packed]] = {}
        self._kept_nbytes = 0
        self._providers: dict[str, str] = {}
        self._lossy: set[str] = set()

    def settle(self, reopen: Callable[[], ModelSource]) -> None:
        """Let passes look at the whole model first, if they need to.

        Parameters
        ----------
        reopen : function
            Opens the model once more.
        """

        def tensors() -> Iterator[tuple[str, Part, TensorStatistics | None]]:
            with contextlib.closing(reopen()) as source:
                for tensor in storable(source):
                    if not tensor.tied_to:
                        part = Part(tensor.spec, read_only(tensor.read()))
                        yield tensor.name, part, self._statistics(tensor.name)

        self._chain.settle(tensors)

    def survey(self, source: ModelSource, progress: Progress | None = None) -> Survey:
        """Look at a model: rate curves of what can be planned, and the size of everything else."""
        curves: dict[str, RateCurve] = {}
        same_as: dict[str, str] = {}
        holders: dict[tuple[TensorSpec, str], str] = {}
        others_nbytes, numel = PREAMBLE_NBYTES + FOOTER_NBYTES, 0
        source.expects_digests = False
        done = 0
        for tensor, found in in_order(source, self._survey_tensor, self._jobs):
            done = min(done + tensor.spec.nbytes, source.nbytes)
            if progress is not None:
                progress(done, source.nbytes)
            if found is None:
                continue
            numel += tensor.spec.numel
            if isinstance(found, _Packed):
                others_nbytes += stored_nbytes(found.coded) + _ENTRY_NBYTES
                self._keep(tensor.name, None, found)
                continue
            curve, digest = found
            same_as[tensor.name] = holder = holders.setdefault((tensor.spec, digest), tensor.name)
            if holder == tensor.name:
                curves[tensor.name] = curve
        for file in source.files():
            literal = Part(TensorSpec("U8", (len(file.literal),)), read_only(file.literal))
            others_nbytes += stored_nbytes(self._coder.smallest_leaf(literal, self._jobs))
        return Survey(curves, same_as, others_nbytes, numel)

    def pack(
        self,
        source: ModelSource,
        writer: ContainerWriter,
        progress: Progress | None = None,
        steps: Mapping[str, float] | None = None,
    ) -> Manifest:
        """Write all streams and return the manifest that describes them.

        Parameters
        ----------
        source : ModelSource
        writer : ContainerWriter
        progress : function, optional
        steps : mapping of str to float, optional
            For `PLANNED_PASS`, by the names of tensors.
        """
        self.notes, self.nbytes_of, self._providers, self._lossy = [], {}, {}, set()
        self._steps = steps or {}
        # What is put together from lossy tensors is not the file that was packed, and has no digest.
        source.expects_digests = self._chain.is_lossless
        tensors: list[TensorEntry] = []
        # Tensors that are stored, by what they were and have become, and by the latter alone.
        holders: dict[tuple[TensorSpec, str, str], str] = {}
        # What copies may still add to what the file decodes to (spec/container.md, section 3.2).
        room = 0
        left_alone: dict[str, list[str]] = {}
        done = 0
        for tensor, packed in in_order(source, self._pack_tensor, self._jobs):
            if packed is None:
                tensors.append(_alias(tensor, tensor.tied_to, tied=1))
            else:
                for pass_id in packed.left_alone:
                    left_alone.setdefault(pass_id, []).append(tensor.name)
                whole, result = (
                    (tensor.spec, packed.digest, packed.source_digest),
                    (tensor.spec, packed.digest, ""),
                )
                equal, merged = holders.get(whole), holders.get(result)
                room += MAX_EXPANSION - tensor.spec.nbytes
                may_be_alias = room >= 0 and not tensor.shared
                if equal is not None and tensor.spec.nbytes and may_be_alias:
                    tensors.append(_alias(tensor, equal, tied=0))
                elif merged is not None and packed.quality is not None and may_be_alias:
                    tensors.append(self._merge(tensor, merged, packed.quality))
                else:
                    tensors.append(self._write_tensor(tensor, packed, writer))
                    room += MAX_EXPANSION * stored_nbytes(packed.coded)
                    holders.setdefault(whole, tensor.name)
                    holders.setdefault(result, tensor.name)
                if steps is not None:
                    self._keep(tensor.name, steps.get(tensor.name), packed)
            # Views of one storage are more bytes than the file that they come from.
            done = min(done + tensor.spec.nbytes, source.nbytes)
            if progress is not None:
                progress(done, source.nbytes)
        files = [self._write_file(file, writer, tensors) for file in source.files()]
        if progress is not None:
            progress(source.nbytes, source.nbytes)
        self.notes += [_note_left_alone(pass_id, names) for pass_id, names in left_alone.items()]
        return Manifest(
            producer=f"cmpk {__version__}",
            recipe=self._recipe.name,
            calibration=self._calibration.sha256 if self._calibration else "",
            metadata=source.metadata,
            providers=dict(sorted(self._providers.items())),
            tensors=tensors,
            files=[file for file in files if file is not None],
        )

    def _statistics(self, name: str) -> TensorStatistics | None:
        return self._calibration.get(name) if self._calibration else None

    def _survey_tensor(self, tensor: SourceTensor, data: U8, threads: int) -> tuple[RateCurve, str] | _Packed:
        """The rate curve of a tensor and its digest; the tensor itself, packed, where it can't be planned."""
        statistics = self._statistics(tensor.name)
        part = self._chain.before(tensor.name, Part(tensor.spec, data), statistics, PLANNED_PASS)
        curve = None if part is None else tensor_rate(part, statistics)
        if part is None or curve is None:
            return self._pack_tensor(tensor, data, threads)
        # Tensors that passes before have made equal are planned as one.
        return curve, blake3.blake3(part.data.data).hexdigest()

    def _pack_tensor(self, tensor: SourceTensor, data: U8, threads: int) -> _Packed:
        name = tensor.name
        step, kept = self._kept.get(name, (None, None))
        if kept is not None and step == self._steps.get(name):
            return kept
        outcome = self._outcome(name, Part(tensor.spec, data), threads)
        outcome, coded = self._coded(name, outcome, threads)
        result = outcome.part.data
        plugins = {*outcome.plugins, *self._coder.plugins_in(coded).values()}
        if not outcome.is_exact:
            with naming(name, plugins):
                if plugins:
                    self._coder.check_leaves(outcome.planned, coded)
                result = decoded(coded, tensor.spec, threads)
        source_digest = digest = blake3.blake3(data.data).hexdigest()
        if result is not outcome.source.data:
            digest = blake3.blake3(result.data).hexdigest()
        quality = None if digest == source_digest else quality_of(outcome, coded, result)
        if plugins:
            check_readable(name, tensor.spec, coded, digest, plugins)
        return _Packed(coded, source_digest, digest, quality, outcome.left_alone)

    def _outcome(self, name: str, part: Part, threads: int) -> Outcome:
        """What the passes make of a tensor, at its planned step or within the largest error."""
        statistics = self._statistics(name)
        step = self._steps.get(name)
        if step is not None:
            return self._chain.apply(name, part, statistics, {PLANNED_PASS: {"step": step}})
        before = None
        if self._max_error is not None:
            before = self._chain.before(name, part, statistics, PLANNED_PASS)
        curve = None if before is None else tensor_rate(before)
        if self._max_error is None or curve is None:
            return self._chain.apply(name, part, statistics)

        def trial(step: float) -> tuple[Outcome, float]:
            outcome = self._chain.apply(name, part, statistics, {PLANNED_PASS: {"step": step}})
            result = decoded(uncoded(outcome.planned), part.spec, threads)
            return outcome, error_of(part, result)

        found = largest_step(trial, curve, self._max_error)
        return found or self._chain.apply(name, part, statistics, {PLANNED_PASS: None})

    def _coded(self, name: str, outcome: Outcome, threads: int) -> tuple[Outcome, Coded]:
        """The smallest tree that the passes, or their absence, leave room for; and what is in it."""
        with blame(f"pass {outcome.pass_id!r}", outcome.plugin):
            coded = self._coder.code(outcome.planned, threads)
        if outcome.planned is not outcome.part and not self._coder.pays(
            stored_nbytes(coded), len(outcome.part.data)
        ):
            # What the pass found does not pay: noise in the types of its parts is noise all the same.
            outcome = dataclasses.replace(outcome, planned=outcome.part, is_exact=True)
            coded = self._coder.smallest(outcome.part, threads)
        frequent = frequent_value(outcome.part) if outcome.is_exact else None
        if frequent is not None and frequent.share >= _MIN_SHARE_OF_ZEROS:
            # In planes of floats zeros would be a symbol of each.
            sparse = self._coder.sparse(
                outcome.part, frequent, coded, self._lossless(name, outcome.part.spec), threads
            )
            if sparse is not None:
                outcome = dataclasses.replace(outcome, planned=outcome.part)
                coded = sparse
        repeated = self._coder.smallest_if_repeated(outcome.part, stored_nbytes(coded), threads)
        if repeated is not None:
            outcome = dataclasses.replace(outcome, planned=outcome.part, is_exact=True)
            coded = repeated
        spec = outcome.source.spec
        if isinstance(coded, CodedBranch) and not is_believed(coded, spec):
            # More than a reader would believe of a tree; of one stream it never is.
            coded = self._coder.smallest_leaf(Part(spec, decoded(coded, spec, threads)), threads)
        return outcome, coded

    def _lossless(self, name: str, spec: TensorSpec) -> Callable[[Part, int], Coded]:
        """What the lossless passes of a tensor's rule make of a part of it, coded."""

        def code(part: Part, threads: int) -> Coded:
            return self._coder.code(self._chain.lossless(name, spec, part, self._statistics(name)), threads)

        return code

    def _keep(self, name: str, step: float | None, packed: _Packed) -> None:
        """Keep a tensor for the next look at the model, if there is room."""
        before = self._kept.pop(name, None)
        self._kept_nbytes -= stored_nbytes(before[1].coded) if before else 0
        nbytes = stored_nbytes(packed.coded)
        if self._kept_nbytes + nbytes <= _KEPT_NBYTES:
            self._kept[name] = step, packed
            self._kept_nbytes += nbytes

    def _merge(self, tensor: SourceTensor, holder: str, quality: Quality) -> TensorEntry:
        """A tensor that was not equal to one that is stored, and has become so."""
        self._lossy.add(tensor.name)
        return _alias(tensor, holder, tied=0, quality=msgspec.structs.replace(quality, coded_millibits=0))

    def _write_tensor(self, tensor: SourceTensor, packed: _Packed, writer: ContainerWriter) -> TensorEntry:
        self._providers |= self._coder.plugins_in(packed.coded)
        self.nbytes_of[tensor.name] = stored_nbytes(packed.coded)
        if packed.quality is not None:
            self._lossy.add(tensor.name)
        node = node_of(packed.coded, writer.add_stream)
        return _entry(tensor, packed.digest, node, packed.quality, self._input_of(tensor, node))

    def _input_of(self, tensor: SourceTensor, node: Node) -> InputRanges | None:
        """What calibration saw in the input of a weight, for layers that multiply its codes."""
        statistics = self._statistics(tensor.name)
        if node.encoding != "affine" or statistics is None or statistics.input_ranges is None:
            return None
        return InputRanges.of(statistics.input_ranges.tolist())

    def _write_file(
        self, file: SourceFile, writer: ContainerWriter, tensors: list[TensorEntry]
    ) -> FileEntry | None:
        inside = [
            entry
            for segment in file.segments
            for entry in tensors[segment.first : segment.first + segment.count]
        ]
        is_lossy = any(map(self._is_lossy, inside))
        if is_lossy and not file.takes_other_values:
            self.notes.append(
                f"{file.path!r} can't hold tensors that were changed; unpacking gives a .safetensors file"
            )
            return None
        node = None
        literal = read_only(file.literal)
        if len(literal):
            spec = TensorSpec("U8", (len(literal),))
            coded = self._coder.smallest_leaf(Part(spec, literal), self._jobs)
            plugins = self._coder.plugins_in(coded)
            if plugins:
                digest = blake3.blake3(literal.data).hexdigest()
                check_readable(file.path, spec, coded, digest, plugins.values())
                self._providers |= plugins
            node = node_of(coded, writer.add_stream)
        nbytes = len(literal) + sum(TensorSpec(entry.dtype, entry.shape).nbytes for entry in inside)
        sha256 = "" if is_lossy else file.sha256()
        return FileEntry(path=file.path, nbytes=nbytes, sha256=sha256, segments=file.segments, literal=node)

    def _is_lossy(self, entry: TensorEntry) -> bool:
        target = entry.data.params["target"] if entry.data.encoding == "alias" else entry.name
        return entry.name in self._lossy or target in self._lossy


def _note_left_alone(pass_id: str, names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    if len(names) > _MAX_NAMES:
        shown += f" and {len(names) - _MAX_NAMES} more"
    tensors = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"pass {pass_id!r} can't handle {tensors}, left as before: {shown}"


def _entry(
    tensor: SourceTensor,
    digest: str,
    node: Node,
    quality: Quality | None = None,
    ranges: InputRanges | None = None,
) -> TensorEntry:
    dtype, shape = tensor.spec
    return TensorEntry(
        name=tensor.name,
        dtype=dtype,
        shape=shape,
        blake3=digest,
        quality=quality,
        input=ranges,
        data=node,
    )


def _alias(tensor: SourceTensor, target: str, tied: int, quality: Quality | None = None) -> TensorEntry:
    return _entry(tensor, "", Node(encoding="alias", params={"target": target, "tied": tied}), quality)

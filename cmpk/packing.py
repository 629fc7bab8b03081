"""Tensors → file: plan each tensor, code its streams, write them in order."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3
import msgspec

from cmpk import kernels
from cmpk.archive import Archive
from cmpk.chain import Chain, read_only
from cmpk.coding import Coded, Coder, decoded, node_of, stored_nbytes
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import PluginError, blame
from cmpk.format import (
    ByteSink,
    ContainerWriter,
    FileEntry,
    Manifest,
    Node,
    Quality,
    QualitySummary,
    TensorEntry,
    atomic_file,
)
from cmpk.format.quality import summary_of
from cmpk.importers.base import ModelSource, SourceFile, SourceTensor, storable
from cmpk.importers.state_dict import checked_metadata
from cmpk.indexing import default_threads
from cmpk.kernels.interface import U8
from cmpk.quality import quality_of
from cmpk.recipe import Recipe, load_recipe
from cmpk.registry import install_kernels, registry
from cmpk.sources import PathLike, Source, open_source
from cmpk.version import __version__

__all__ = ["PackReport", "Progress", "pack"]

Progress = Callable[[int, int], None]
"""Called with the bytes of the source done and in all."""

_MAX_NAMES: Final = 3
"""Tensors that a note names."""

_IN_FLIGHT_NBYTES: Final = 128 << 20
"""Tensors that are worked on at a time may have this many bytes in all; a larger one goes alone."""


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
    """

    source_nbytes: int
    nbytes: int
    n_tensors: int
    n_files: int
    sha256: str
    seconds: float
    notes: list[str]
    quality: QualitySummary | None = None


def pack(
    src: Source,
    dst: PathLike | ByteSink,
    *,
    recipe: PathLike | Recipe = "lossless",
    jobs: int | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> PackReport:
    """Pack a model.

    Parameters
    ----------
    src : path, mapping of str to tensor, or ModelSource
        A model file or directory, or tensors in memory.
    dst : path or binary file
        The ``.cmpk`` file; written under another name and renamed when complete. A binary file is
        only ever appended to, so a pipe will do.
    recipe : str, path or Recipe
        A name (``cmpk.recipe.builtin_names``) or a TOML file.
    jobs : int, optional
        Threads; all cores by default. The file does not depend on it.
    metadata : mapping of str to str, optional
        Kept in the file; by default the source's own.
    progress : function, optional
        Called with bytes done and bytes in all.
    force : bool
        Overwrite ``dst`` if it exists.

    Returns
    -------
    PackReport

    Raises
    ------
    SourceError, RecipeError, DestinationError
    UnknownIdError
        If the recipe names a codec or pass that is not installed.
    PluginError
        If a plugin's codec or pass fails, or makes what can't be read back.
    """
    started = time.perf_counter()
    metadata = None if metadata is None else checked_metadata(metadata)
    packer = _Packer(load_recipe(recipe), jobs or default_threads())
    with contextlib.ExitStack() as stack:
        source = open_source(src, packer.registry)
        stack.callback(source.close)
        if isinstance(dst, str | os.PathLike):
            sink: ByteSink = stack.enter_context(atomic_file(Path(dst), overwrite=force))
        else:
            sink = dst
        writer = ContainerWriter(sink)
        manifest = packer.pack(source, writer, progress)
        if metadata is not None:
            manifest = msgspec.structs.replace(manifest, metadata=metadata)
        footer = writer.finish(manifest)
    return PackReport(
        source_nbytes=source.nbytes,
        nbytes=writer.nbytes,
        n_tensors=len(manifest.tensors),
        n_files=len(manifest.files),
        sha256=footer.manifest_sha256.hex(),
        seconds=time.perf_counter() - started,
        notes=[*source.notes, *packer.notes],
        quality=summary_of(
            (entry.name, TensorSpec(entry.dtype, entry.shape).numel, entry.quality)
            for entry in manifest.tensors
        ),
    )


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


class _Packer:
    """A recipe at work."""

    def __init__(self, recipe: Recipe, jobs: int) -> None:
        install_kernels()
        # Before a file is begun: an import of native code may lose the exit that a signal asks for.
        kernels.active()
        self.registry = registry()
        self.notes: list[str] = []
        self._recipe = recipe
        self._jobs = max(1, jobs)
        self._coder = Coder(recipe, self.registry)
        self._chain = Chain(recipe, self.registry)
        self._providers: dict[str, str] = {}
        self._lossy: set[str] = set()

    def pack(self, source: ModelSource, writer: ContainerWriter, progress: Progress | None) -> Manifest:
        """Write all streams and return the manifest that describes them."""
        tensors: list[TensorEntry] = []
        holders: dict[tuple[TensorSpec, str, str], str] = {}
        left_alone: dict[str, list[str]] = {}
        done = 0
        for tensor, packed in self._packed(source):
            if packed is None:
                tensors.append(_alias(tensor, tensor.tied_to, tied=1))
            else:
                # Tensors that were equal may not be any more, and those that are may not have been.
                holder = holders.setdefault((tensor.spec, packed.source_digest, packed.digest), tensor.name)
                for pass_id in packed.left_alone:
                    left_alone.setdefault(pass_id, []).append(tensor.name)
                if holder != tensor.name and tensor.spec.nbytes and not tensor.shared:
                    tensors.append(_alias(tensor, holder, tied=0))
                else:
                    self._providers |= self._coder.plugins_in(packed.coded)
                    node = _write(packed.coded, writer)
                    tensors.append(_entry(tensor, packed.digest, node, packed.quality))
                    if packed.quality is not None:
                        self._lossy.add(tensor.name)
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
            metadata=source.metadata,
            providers=dict(sorted(self._providers.items())),
            tensors=tensors,
            files=[file for file in files if file is not None],
        )

    def _packed(self, source: ModelSource) -> Iterator[tuple[SourceTensor, _Packed | None]]:
        """Tensors in order, worked on by several threads at a time; None for one tied to another."""
        if self._jobs == 1:
            for tensor in storable(source):
                yield tensor, None if tensor.tied_to else self._pack_tensor(tensor, tensor.read(), 1)
            return
        waiting: deque[tuple[SourceTensor, Future[_Packed] | None]] = deque()
        in_flight = 0
        pool = ThreadPoolExecutor(self._jobs)
        try:
            for tensor in storable(source):
                nbytes = 0 if tensor.tied_to else tensor.spec.nbytes
                while waiting and in_flight + nbytes > _IN_FLIGHT_NBYTES:
                    in_flight -= 0 if waiting[0][1] is None else waiting[0][0].spec.nbytes
                    yield _finished(*waiting.popleft())
                future = None
                if not tensor.tied_to:
                    # The threads of the pool are shared by small tensors; a large one is nearly alone.
                    threads = self._jobs if nbytes > _IN_FLIGHT_NBYTES // 4 else 1
                    future = pool.submit(self._pack_tensor, tensor, tensor.read(), threads)
                    in_flight += nbytes
                waiting.append((tensor, future))
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            # After an error or an interrupt nobody wants what is still to be coded, or being coded.
            pool.shutdown(wait=False, cancel_futures=True)

    def _pack_tensor(self, tensor: SourceTensor, data: U8, threads: int) -> _Packed:
        name = tensor.name
        outcome = self._chain.apply(name, Part(tensor.spec, data))
        with blame(f"pass {outcome.pass_id!r}", outcome.plugin):
            coded = self._coder.code(outcome.planned, threads)
        if outcome.planned is not outcome.part and not self._coder.pays(stored_nbytes(coded), len(data)):
            # What the pass found does not pay: noise in the types of its parts is noise all the same.
            outcome = dataclasses.replace(outcome, planned=outcome.part, is_exact=True)
            coded = self._coder.smallest(outcome.part, threads)
        repeated = self._coder.smallest_if_repeated(outcome.part, stored_nbytes(coded), threads)
        if repeated is not None:
            outcome = dataclasses.replace(outcome, planned=outcome.part, is_exact=True)
            coded = repeated
        result = outcome.part.data
        plugins = {*outcome.plugins, *self._coder.plugins_in(coded).values()}
        if not outcome.is_exact:
            with _unreadable(name, plugins):
                if plugins:
                    self._coder.check_leaves(outcome.planned, coded)
                result = decoded(coded, tensor.spec, threads)
        source_digest = digest = blake3.blake3(data.data).hexdigest()
        if result is not outcome.source.data:
            digest = blake3.blake3(result.data).hexdigest()
        quality = None if digest == source_digest else quality_of(outcome, coded, result)
        if plugins:
            self._check_readable(name, tensor.spec, coded, digest, plugins)
        return _Packed(coded, source_digest, digest, quality, outcome.left_alone)

    def _check_readable(
        self, name: str, spec: TensorSpec, coded: Coded, digest: str, plugins: Iterable[str]
    ) -> None:
        """Read back what a plugin had a hand in, before it is written; cmpk's own is held by its tests."""
        sink = io.BytesIO()
        writer = ContainerWriter(sink)
        with _unreadable(name, plugins):
            node = _write(coded, writer)
            entry = TensorEntry(name=name, dtype=spec.dtype, shape=spec.shape, blake3=digest, data=node)
            writer.finish(Manifest(producer="", tensors=[entry]))
            with Archive(sink.getvalue()) as archive:
                archive.verify(deep=True)

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
            coded = self._coder.smallest(Part(spec, literal), self._jobs)
            plugins = self._coder.plugins_in(coded)
            if plugins:
                digest = blake3.blake3(literal.data).hexdigest()
                self._check_readable(file.path, spec, coded, digest, plugins.values())
                self._providers |= plugins
            node = _write(coded, writer)
        nbytes = len(literal) + sum(TensorSpec(entry.dtype, entry.shape).nbytes for entry in inside)
        # What is put together from lossy tensors is not the file that was packed.
        sha256 = "" if is_lossy else file.sha256
        return FileEntry(path=file.path, nbytes=nbytes, sha256=sha256, segments=file.segments, literal=node)

    def _is_lossy(self, entry: TensorEntry) -> bool:
        name = entry.data.params["target"] if entry.data.encoding == "alias" else entry.name
        return name in self._lossy


@contextlib.contextmanager
def _unreadable(name: str, plugins: Iterable[str]) -> Iterator[None]:
    """Name the plugins, if there are any, in whatever is raised while a tensor is read back."""
    try:
        yield
    except Exception as error:
        names = " and ".join(sorted(set(plugins)))
        if not names:
            raise
        raise PluginError(f"what {names} made of {name!r} can't be read back: {error}") from error


def _finished(tensor: SourceTensor, future: Future[_Packed] | None) -> tuple[SourceTensor, _Packed | None]:
    return tensor, None if future is None else future.result()


def _write(coded: Coded, writer: ContainerWriter) -> Node:
    return node_of(coded, writer.add_stream)


def _note_left_alone(pass_id: str, names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    if len(names) > _MAX_NAMES:
        shown += f" and {len(names) - _MAX_NAMES} more"
    tensors = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"pass {pass_id!r} can't handle {tensors}, left as before: {shown}"


def _entry(tensor: SourceTensor, digest: str, node: Node, quality: Quality | None = None) -> TensorEntry:
    dtype, shape = tensor.spec
    return TensorEntry(name=tensor.name, dtype=dtype, shape=shape, blake3=digest, quality=quality, data=node)


def _alias(tensor: SourceTensor, target: str, tied: int) -> TensorEntry:
    return _entry(tensor, "", Node(encoding="alias", params={"target": target, "tied": tied}))

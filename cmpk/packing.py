"""Tensors → file: plan each tensor, code its streams, write them in order."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import blake3
import msgspec

from cmpk import kernels
from cmpk.archive import Archive
from cmpk.codecs.base import Codec
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import PluginError, SourceError, blame
from cmpk.estimates import estimate, expands_within, is_noise
from cmpk.format import ByteSink, ContainerWriter, FileEntry, Manifest, Node, TensorEntry, atomic_file
from cmpk.importers.base import ModelSource, SourceTensor, storable
from cmpk.importers.state_dict import StateDictSource, checked_metadata
from cmpk.indexing import default_threads
from cmpk.kernels.interface import U8, Buffer
from cmpk.passes.base import Pass, Planned, Split
from cmpk.recipe import Recipe, load_recipe
from cmpk.registry import Registry, codec_of, install_kernels, registry
from cmpk.version import __version__

__all__ = ["PackReport", "Progress", "pack"]

Progress = Callable[[int, int], None]
"""Called with the bytes of the source done and in all."""

PathLike: TypeAlias = str | os.PathLike[str]

_SKEWED_SHARE: Final = 1 / 8
"""Where a byte takes less than a bit, runs of one value are long even without any order."""

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
        What a user should know about how the source was taken.
    """

    source_nbytes: int
    nbytes: int
    n_tensors: int
    n_files: int
    sha256: str
    seconds: float
    notes: list[str]


def pack(
    src: PathLike | Mapping[str, Any] | ModelSource,
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
        source = _open_source(src, packer.registry)
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
        notes=source.notes,
    )


def _open_source(src: PathLike | Mapping[str, Any] | ModelSource, offers: Registry) -> ModelSource:
    if isinstance(src, ModelSource):
        return src
    if isinstance(src, Mapping):
        return StateDictSource(src)
    path = Path(src)
    if not path.exists():
        raise SourceError(f"{str(path)!r} does not exist")
    for registered in offers.importers.values():
        with blame(f"importer {registered.item.id!r}", registered.plugin):
            if registered.item.accepts(path):
                return registered.item.open(path)
    forms = "; ".join(registered.item.summary for registered in offers.importers.values())
    raise SourceError(f"{str(path)!r} is in no form that can be packed: {forms}")


@dataclass(frozen=True, slots=True)
class _CodedLeaf:
    codec: str
    stream: Buffer


@dataclass(frozen=True, slots=True)
class _CodedBranch:
    split: Split
    parts: dict[str, _Coded]


_Coded: TypeAlias = _CodedLeaf | _CodedBranch


class _Packer:
    """A recipe at work."""

    def __init__(self, recipe: Recipe, jobs: int) -> None:
        install_kernels()
        # Before a file is begun: an import of native code may lose the exit that a signal asks for.
        kernels.active()
        self.registry = registry()
        self._recipe = recipe
        self._jobs = max(1, jobs)
        # Each with the plugin that it comes with, empty for cmpk's own.
        self._codecs: list[tuple[Codec, str]] = [
            (codec, self.registry.registered("codecs", codec.id).plugin)
            for codec in map(codec_of, recipe.codecs)
        ]
        self._passes: list[tuple[Pass, Mapping[str, object], str]] = [
            (found.item, options, found.plugin)
            for pass_id, options in recipe.passes.items()
            for found in [self.registry.registered("passes", pass_id)]
        ]
        self._providers: dict[str, str] = {}

    def pack(self, source: ModelSource, writer: ContainerWriter, progress: Progress | None) -> Manifest:
        """Write all streams and return the manifest that describes them."""
        tensors: list[TensorEntry] = []
        holders: dict[tuple[TensorSpec, str], str] = {}
        done = 0
        for tensor, coded, digest in self._coded(source):
            holder = holders.setdefault((tensor.spec, digest), tensor.name)
            if coded is None:
                tensors.append(_alias(tensor, tensor.tied_to, tied=1))
            elif holder != tensor.name and tensor.spec.nbytes and not tensor.shared:
                tensors.append(_alias(tensor, holder, tied=0))
            else:
                self._providers |= self._plugins_in(coded)
                tensors.append(_entry(tensor, digest, _write(coded, writer)))
            # Views of one storage are more bytes than the file that they come from.
            done = min(done + tensor.spec.nbytes, source.nbytes)
            if progress is not None:
                progress(done, source.nbytes)
        files = [self._write_file(file.path, file.segments, file.literal, file.sha256, writer, tensors)
                 for file in source.files()]  # fmt: skip
        if progress is not None:
            progress(source.nbytes, source.nbytes)
        return Manifest(
            producer=f"cmpk {__version__}",
            recipe=self._recipe.name,
            metadata=source.metadata,
            providers=dict(sorted(self._providers.items())),
            tensors=tensors,
            files=files,
        )

    def _coded(self, source: ModelSource) -> Iterator[tuple[SourceTensor, _Coded | None, str]]:
        """Tensors in order, coded by several threads at a time; None for one that is tied to another."""
        if self._jobs == 1:
            for tensor in storable(source):
                yield (
                    (tensor, None, "")
                    if tensor.tied_to
                    else (tensor, *self._code_tensor(tensor, tensor.read(), 1))
                )
            return
        waiting: deque[tuple[SourceTensor, Future[tuple[_Coded, str]] | None]] = deque()
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
                    future = pool.submit(self._code_tensor, tensor, tensor.read(), threads)
                    in_flight += nbytes
                waiting.append((tensor, future))
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            # After an error or an interrupt nobody wants what is still to be coded, or being coded.
            pool.shutdown(wait=False, cancel_futures=True)

    def _code_tensor(self, tensor: SourceTensor, data: U8, threads: int) -> tuple[_Coded, str]:
        digest = blake3.blake3(data.data).hexdigest()
        part = Part(tensor.spec, _read_only(data))
        planned: Planned = part
        pass_id = plugin = ""
        for chosen, options, its_plugin in self._passes:
            with blame(f"pass {chosen.id!r}", its_plugin):
                found = chosen.apply(tensor.name, part, options)
            if found is not None:
                planned, pass_id, plugin = found, chosen.id, its_plugin
                break
        with blame(f"pass {pass_id!r}", plugin):
            coded = self._code(planned, threads)
        if planned is not part and _stored_nbytes(coded) > len(data) * (1 - self._recipe.min_saving):
            # What the pass found does not pay: noise in the types of its parts is noise all the same.
            coded = self._smallest(part, threads)
        self._check_readable(tensor.name, part, coded, plugin)
        return coded, digest

    def _code(self, planned: Planned, threads: int) -> _Coded:
        if isinstance(planned, Split):
            return _CodedBranch(
                planned, {name: self._code(part, threads) for name, part in planned.parts.items()}
            )
        return self._smallest(planned, threads)

    def _smallest(self, part: Part, threads: int) -> _CodedLeaf:
        """Code bytes with the codec that pays best: by estimates on all or a sample, then checked."""
        data = part.data
        # Each entry saves enough over the one before it to be worth its slower decoding.
        chain: list[tuple[float, Codec, str, Buffer | None]] = []
        limit = len(data) * (1 - self._recipe.min_saving)
        for codec, plugin in () if is_noise(data) else self._codecs:
            if codec.id == "raw" or not len(data):
                continue
            if part.is_memoryless and not codec.is_order0 and limit > len(data) * _SKEWED_SHARE:
                continue
            with blame(f"codec {codec.id!r}", plugin):
                found = estimate(codec, data)
            if found is not None and found.nbytes <= limit:
                chain.append((limit, codec, plugin, found.stream))
                limit = found.nbytes * (1 - self._recipe.min_saving)
        for limit, codec, plugin, estimated in reversed(chain):
            with blame(f"codec {codec.id!r}", plugin):
                stream = codec.encode(data, threads) if estimated is None else estimated
                view = None if stream is None else memoryview(stream).cast("B")  # type: ignore[arg-type]
            if view is not None and len(view) <= limit and expands_within(codec, len(view), len(data)):
                return _CodedLeaf(codec.id, view)
        return _CodedLeaf("raw", data)

    def _plugins_in(self, coded: _Coded) -> dict[str, str]:
        """The codecs and encodings of a tree that plugins offer, by id, and which plugins."""
        if isinstance(coded, _CodedLeaf):
            plugin = self.registry.registered("codecs", coded.codec).plugin
            return {coded.codec: plugin} if plugin else {}
        plugin = self.registry.registered("encodings", coded.split.encoding).plugin
        found = {coded.split.encoding: plugin} if plugin else {}
        for part in coded.parts.values():
            found |= self._plugins_in(part)
        return found

    def _check_readable(self, name: str, part: Part, coded: _Coded, pass_plugin: str = "") -> None:
        """Read back what a plugin had a hand in, before it is written; cmpk's own is held by its tests."""
        plugins = {pass_plugin, *self._plugins_in(coded).values()} - {""}
        if not plugins:
            return
        sink = io.BytesIO()
        writer = ContainerWriter(sink)
        try:
            entry = TensorEntry(
                name=name,
                dtype=part.spec.dtype,
                shape=part.spec.shape,
                blake3=blake3.blake3(part.data.data).hexdigest(),
                data=_write(coded, writer),
            )
            writer.finish(Manifest(producer="", tensors=[entry]))
            with Archive(sink.getvalue()) as archive:
                archive.verify(deep=True)
        except Exception as error:
            names = " and ".join(sorted(plugins))
            raise PluginError(f"what {names} made of {name!r} can't be read back: {error}") from error

    def _write_file(
        self,
        path: str,
        segments: list[Any],
        literal: U8,
        sha256: str,
        writer: ContainerWriter,
        tensors: list[TensorEntry],
    ) -> FileEntry:
        node = None
        if len(literal):
            part = Part(TensorSpec("U8", (len(literal),)), _read_only(literal))
            coded = self._smallest(part, self._jobs)
            self._check_readable(path, part, coded)
            self._providers |= self._plugins_in(coded)
            node = _write(coded, writer)
        nbytes = len(literal) + sum(
            TensorSpec(entry.dtype, entry.shape).nbytes
            for segment in segments
            for entry in tensors[segment.first : segment.first + segment.count]
        )
        return FileEntry(path=path, nbytes=nbytes, sha256=sha256, segments=segments, literal=node)


def _finished(
    tensor: SourceTensor, future: Future[tuple[_Coded, str]] | None
) -> tuple[SourceTensor, _Coded | None, str]:
    return (tensor, None, "") if future is None else (tensor, *future.result())


def _stored_nbytes(coded: _Coded) -> int:
    """Bytes of all streams of a tree."""
    if isinstance(coded, _CodedLeaf):
        return len(coded.stream)
    return sum(_stored_nbytes(part) for part in coded.parts.values())


def _read_only(data: U8) -> U8:
    """The same bytes, safe from passes and codecs that would work in place."""
    view = data.view()
    view.flags.writeable = False
    return view


def _write(coded: _Coded, writer: ContainerWriter) -> Node:
    """Write the streams of a tree and return its node."""
    if isinstance(coded, _CodedLeaf):
        return writer.add_stream(coded.codec, coded.stream)
    split = coded.split
    parts = {name: _write(part, writer) for name, part in coded.parts.items()}
    return Node(encoding=split.encoding, params=dict(sorted(split.params.items())), parts=parts)


def _entry(tensor: SourceTensor, digest: str, node: Node) -> TensorEntry:
    return TensorEntry(
        name=tensor.name, dtype=tensor.spec.dtype, shape=tensor.spec.shape, blake3=digest, data=node
    )


def _alias(tensor: SourceTensor, target: str, tied: int) -> TensorEntry:
    return _entry(tensor, "", Node(encoding="alias", params={"target": target, "tied": tied}))

"""An open ``.cmpk`` file: what is in it, its tensors' bytes, and whether it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final

import blake3

from cmpk.codecs.base import Codec
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Decoder, Leaf, Stored, allocate, known_spec
from cmpk.encodings.jobs import DeviceJob, jobs_of
from cmpk.errors import CmpkError, CorruptStreamError, PluginError, SourceError, blame
from cmpk.format import ContainerReader, FileEntry, Manifest, TensorEntry
from cmpk.kernels.interface import U8
from cmpk.registry import install_kernels
from cmpk.resolve import require_installed, resolve_files, resolve_tensors

__all__ = ["Archive", "Progress", "open_archive"]

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

_PIECE_NBYTES: Final = 1 << 26
"""Of literals, at a time: a multiple of the chunks of all codecs, so that none is decoded twice."""


class Archive:
    """A ``.cmpk`` file whose every rule that needs no decoding has been checked.

    Usable as a context manager. Tensors are decoded when they are asked for.

    Parameters
    ----------
    source : path or bytes

    Raises
    ------
    SourceError
        If the file can't be opened.
    FormatError
        If it breaks a rule of the specification.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        install_kernels()
        try:
            self._reader = ContainerReader(source)
            offsets = iter(self._reader.offsets)
            self._roots = resolve_tensors(self.manifest, offsets)
            self._literals = resolve_files(self.manifest, offsets)
            self._entries = {entry.name: entry for entry in self.manifest.tensors}
        except MemoryError as error:
            raise CmpkError("not enough memory for what the manifest describes") from error
        self._installed: set[str] = set()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    @property
    def manifest(self) -> Manifest:
        """Everything in the file but the streams."""
        return self._reader.manifest

    @property
    def manifest_json(self) -> bytes:
        """The manifest as it is in the file."""
        return self._reader.manifest_json

    @property
    def metadata(self) -> Mapping[str, str]:
        """The user's own metadata."""
        return self.manifest.metadata

    @property
    def sha256(self) -> str:
        """Digest of the manifest, in hexadecimal: it names the archive and everything in it."""
        return self._reader.footer.manifest_sha256.hex()

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self._reader.nbytes

    @property
    def decoded_nbytes(self) -> int:
        """Bytes of all tensors, each alias counted as a tensor of its own."""
        return sum(self.spec(name).nbytes for name in self._entries)

    def keys(self) -> list[str]:
        """Names of the tensors, in file order."""
        return list(self._entries)

    def entry(self, name: str) -> TensorEntry:
        """What the manifest says of a tensor.

        Raises
        ------
        SourceError
            If there is none of that name.
        """
        self.stored(name)
        return self._entries[name]

    def spec(self, name: str) -> TensorSpec:
        """Type and shape of a tensor."""
        return known_spec(self.stored(name))

    def stored(self, name: str) -> Stored:
        """How a tensor is stored: its located tree."""
        try:
            return self._roots[name]
        except KeyError:
            raise SourceError(
                f"the archive has no tensor {name!r}; `cmpk inspect` lists its tensors"
            ) from None

    def stored_literal(self, file: FileEntry) -> Stored | None:
        """How the literal bytes of a file are stored; None if it has none."""
        return self._literals[file.path]

    def target_of(self, name: str) -> str:
        """The tensor that holds the bytes: the alias's target, or the tensor itself."""
        node = self.entry(name).data
        return str(node.params["target"]) if node.encoding == "alias" else name

    def is_tied(self, name: str) -> bool:
        """Whether it is another name of an earlier tensor (not merely equal to it)."""
        node = self.entry(name).data
        return node.encoding == "alias" and node.params["tied"] == 1

    def read(self, name: str, threads: int = 1) -> U8:
        """The bytes of a tensor; see `read_into`."""
        out = allocate(self.spec(name).nbytes)
        self.read_into({name: out}, threads)
        return out

    def read_into(self, outs: Mapping[str, U8], threads: int = 1) -> None:
        """Decode whole tensors, all in one call of the kernels.

        Parameters
        ----------
        outs : mapping of str to uint8 array, shape (nbytes of the tensor,)
            Where the bytes of each go.
        threads : int
            How many may be used.

        Raises
        ------
        CorruptStreamError
            If a stream is damaged. The message names the tensor.
        UnknownIdError
            If a codec or encoding is not installed.
        """
        # Decoding is safe on any bytes, so that digests may be late: with several threads they are checked
        # while the kernels run, without the interpreter.
        decoder = Decoder(self._read_stream if threads == 1 else self._read_unchecked, threads)
        try:
            for name, out in outs.items():
                self._decode_into(decoder, name, 0, self.spec(name).numel, out)
            with contextlib.nullcontext() if threads == 1 else self.digests_checked(outs):
                self._flush(decoder, next(iter(outs), ""))
        except CorruptStreamError:
            if len(outs) > 1 or threads > 1:
                # Rare enough to afford finding out which tensor and which stream it was.
                for name, out in outs.items():
                    self.read_into({name: out})
            raise

    @contextlib.contextmanager
    def digests_checked(self, names: Iterable[str]) -> Iterator[None]:
        """Check the streams of tensors against their digests, on a thread of its own, meanwhile.

        Decoding is safe on any bytes; who decodes must find the same damage without, or name the tensor.
        """
        targets = dict.fromkeys(map(self.target_of, names))
        leaves = [leaf for target in targets for leaf in leaves_of(self._roots[target])]
        with ThreadPoolExecutor(1) as pool:
            checked = pool.submit(lambda: [self._read_stream(leaf) for leaf in leaves])
            yield
            checked.result()

    def read_range(self, name: str, start: int, stop: int, threads: int = 1) -> U8:
        """The bytes of elements ``start .. stop - 1``, decoding little more than these."""
        spec = self.spec(name)
        if not 0 <= start <= stop <= spec.numel:
            raise SourceError(f"elements {start} to {stop} are not within tensor {name!r} of {spec.numel}")
        out = allocate((stop - start) * spec.nbytes // spec.numel if spec.numel else 0)
        decoder = Decoder(self._read_stream, threads)
        self._decode_into(decoder, name, start, stop, out)
        self._flush(decoder, name)
        return out

    def jobs(self, name: str, threads: int = 1, start: int = 0, stop: int | None = None) -> list[DeviceJob]:
        """What putting elements ``start .. stop - 1`` together comes to, for kernels of a device.

        By default those of the whole tensor; whole rows, of a tensor that has some. See `jobs_of`.

        Raises
        ------
        CorruptStreamError
            If something that had to be read for this is damaged.
        UnknownIdError
            If a codec or encoding is not installed.
        """
        root = self._installed_root(name)
        try:
            stop = known_spec(root).numel if stop is None else stop
            return jobs_of(root, start, stop, Decoder(self._read_unchecked, threads))
        except CmpkError as error:
            raise type(error)(f"tensor {name!r}: {error}") from error

    def view(self, name: str) -> U8 | None:
        """The bytes of a tensor right in the mapped file, read-only; None unless they are stored raw."""
        import numpy as np

        root = self._roots[self.target_of(name)]
        if isinstance(root, Leaf) and root.node.codec == "raw":
            stream = self._read_stream(root)
            if root.spec is not None and len(stream) == root.spec.nbytes:
                return np.frombuffer(stream, np.uint8)
        return None

    def streams(self, name: str) -> dict[int, memoryview]:
        """The streams that a tensor is decoded from, by their offsets, checked against their digests.

        They stay valid when the archive is closed.

        Raises
        ------
        CorruptStreamError
            If one is damaged.
        UnknownIdError
            If a codec or encoding of the tensor is not installed.
        """
        root = self.stored(self.target_of(name))
        require_installed(root, f"tensor {name!r}", self.manifest.providers)
        try:
            return {leaf.offset: self._read_stream(leaf) for leaf in leaves_of(root)}
        except CorruptStreamError as error:
            raise CorruptStreamError(f"tensor {name!r}: {error}") from error

    def literal(self, file: FileEntry) -> U8:
        """The literal bytes of a file's segments."""
        stored = self._literals[file.path]
        if stored is None:
            return allocate(0)
        require_installed(stored, f"file {file.path!r}", self.manifest.providers)
        return Decoder(self._read_stream).decode(stored)

    def _literal_pieces(self, file: FileEntry) -> Iterator[U8]:
        """The literal bytes piece by piece: an attachment may be as large as a disk."""
        stored = self._literals[file.path]
        if not isinstance(stored, Leaf):
            return
        require_installed(stored, f"file {file.path!r}", self.manifest.providers)
        stream = self._read_stream(stored)
        decoder = Decoder(lambda leaf: stream)
        for start in range(0, file.literal_nbytes, _PIECE_NBYTES):
            yield decoder.decode(stored, start, min(start + _PIECE_NBYTES, file.literal_nbytes))

    def file_chunks(self, file: FileEntry, threads: int = 1) -> Iterator[U8]:
        """The bytes of a packed file, piece by piece; checks its digest at the end.

        One of lossy tensors has none: there each tensor is checked against its own.

        Raises
        ------
        CorruptStreamError
            If a stream is damaged, or what was put together is not the file that was packed.
        """
        digest = hashlib.sha256()
        for entry, piece in self._pieces(file, threads):
            if file.sha256:
                digest.update(piece.data)
            elif entry is not None:
                _check_blake3(self._entries[self.target_of(entry.name)], piece)
            yield piece
        _check_sha256(file, digest.hexdigest())

    def _pieces(self, file: FileEntry, threads: int) -> Iterator[tuple[TensorEntry | None, U8]]:
        """The bytes of a packed file, and which tensor each piece is; None for literal bytes."""
        pieces = self._literal_pieces(file)
        piece = allocate(0)
        for segment in file.segments:
            left = segment.literal
            while left:
                piece = piece if len(piece) else next(pieces)
                yield None, piece[:left]
                left, piece = left - len(piece[:left]), piece[left:]
            for entry in self.manifest.tensors[segment.first : segment.first + segment.count]:
                yield entry, self.read(entry.name, threads)

    def verify(self, *, deep: bool = False, threads: int = 1, progress: Progress | None = None) -> None:
        """Check the file.

        Parameters
        ----------
        deep : bool
            Also decode everything and check the result against its digests. Without, the stored
            bytes of every stream are checked, which finds any accidental damage.
        threads : int
        progress : function, optional
            Called with the bytes done and in all: stored ones, and with ``deep`` decoded ones too.

        Raises
        ------
        FormatError
            Whatever is found first.
        UnknownIdError
            With ``deep``, if a codec or encoding is not installed.
        """
        self._reader.check_padding()
        total = self.nbytes
        # What is no stream has been read already.
        done = total - sum(leaf.node.nbytes for _, stored in self._everything() for leaf in leaves_of(stored))
        if deep:
            total += sum(file.nbytes for file in self.manifest.files)
            total += sum(self.spec(name).nbytes for name in self._names_outside_files())
        for what, stored in self._everything():
            if deep:
                require_installed(stored, what, self.manifest.providers)
            for leaf in leaves_of(stored):
                try:
                    stream = self._read_stream(leaf)
                    if deep:
                        _check_rules(leaf, stream)
                except (CorruptStreamError, PluginError) as error:
                    raise type(error)(f"{what}: {error}") from error
                done += len(stream)
                if progress is not None:
                    progress(done, total)
        for nbytes in self._verify_decoded(threads) if deep else ():
            done += nbytes
            if progress is not None:
                progress(done, total)

    def _verify_decoded(self, threads: int) -> Iterator[int]:
        """Decode each tensor once, for its own digest and for that of the file that it is part of."""
        for file in self.manifest.files:
            digest = hashlib.sha256()
            for entry, piece in self._pieces(file, threads):
                if entry is not None:
                    _check_blake3(entry, piece)
                digest.update(piece.data)
                yield len(piece)
            _check_sha256(file, digest.hexdigest())
        for name in self._names_outside_files():
            _check_blake3(self._entries[name], self.read(name, threads))
            yield self.spec(name).nbytes

    def _names_outside_files(self) -> list[str]:
        """The tensors that no packed file is put together from."""
        inside: set[str] = set()
        for file in self.manifest.files:
            for segment in file.segments:
                entries = self.manifest.tensors[segment.first : segment.first + segment.count]
                inside.update(entry.name for entry in entries)
        return [name for name in self._entries if name not in inside]

    def _everything(self) -> Iterator[tuple[str, Stored]]:
        for name, root in self._roots.items():
            yield f"tensor {name!r}", root
        for path, literal in self._literals.items():
            if literal is not None:
                yield f"file {path!r}", literal

    def _read_stream(self, leaf: Leaf) -> memoryview:
        return self._reader.stream(leaf.offset, leaf.node)

    def _read_unchecked(self, leaf: Leaf) -> memoryview:
        return self._reader.unchecked_stream(leaf.offset, leaf.node)

    def _flush(self, decoder: Decoder, name: str) -> None:
        try:
            decoder.flush()
        except CorruptStreamError as error:
            raise CorruptStreamError(f"tensor {name!r}: {error}") from error

    def _decode_into(self, decoder: Decoder, name: str, start: int, stop: int, out: U8) -> None:
        root = self._installed_root(name)
        try:
            decoder.decode_into(root, start, stop, out)
        except CmpkError as error:
            raise type(error)(f"tensor {name!r}: {error}") from error

    def _installed_root(self, name: str) -> Stored:
        """The tree that holds a tensor's bytes, all of whose codecs and encodings are there."""
        target = self.target_of(name)
        root = self._roots[target]
        if target not in self._installed:
            require_installed(root, f"tensor {name!r}", self.manifest.providers)
            self._installed.add(target)
        return root


def leaves_of(stored: Stored) -> Iterator[Leaf]:
    """The leaves of a tree, in file order."""
    if isinstance(stored, Branch):
        for part in stored.parts.values():
            yield from leaves_of(part)
    else:
        yield stored


def _check_blake3(entry: TensorEntry, data: U8) -> None:
    if entry.blake3 and blake3.blake3(data.data).hexdigest() != entry.blake3:
        raise CorruptStreamError(f"tensor {entry.name!r} does not match its BLAKE3 digest")


def _check_sha256(file: FileEntry, found: str) -> None:
    if file.sha256 and found != file.sha256:
        raise CorruptStreamError(f"file {file.path!r} does not match its SHA-256; the archive is damaged")


def _check_rules(leaf: Leaf, stream: memoryview) -> None:
    """Check what decoding may skip."""
    if leaf.codec is not None and leaf.spec is not None and type(leaf.codec).check is not Codec.check:
        with blame(f"codec {leaf.codec.id!r}", leaf.plugin):
            leaf.codec.check(stream, leaf.spec.nbytes)


def open_archive(path: str | os.PathLike[str]) -> Archive:
    """Open a ``.cmpk`` file; public as ``cmpk.open``.

    Raises
    ------
    SourceError
        If the file can't be opened.
    FormatError
        If it breaks a rule of the specification.
    """
    return Archive(os.fspath(path))

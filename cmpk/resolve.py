"""From manifest nodes to located, typed, checked trees (spec/container.md, sections 3.2, 5 and 6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from cmpk.codecs.base import Codec
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Encoding, Leaf, Stored
from cmpk.errors import CmpkError, FormatError, PluginError, UnknownIdError, blame
from cmpk.format.layout import MAX_EXPANSION, MAX_TENSOR_NBYTES
from cmpk.format.manifest import Manifest, Node, TensorEntry, leaves
from cmpk.registry import find, registry

__all__ = ["check_tree", "require_installed", "resolve_files", "resolve_tensors", "resolve_tree"]

_DISTRIBUTION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def resolve_tensors(manifest: Manifest, offsets: Iterator[int]) -> dict[str, Stored]:
    """The trees of all tensors, by name.

    Parameters
    ----------
    manifest : Manifest
    offsets : iterator of int
        Where the streams start, in file order; taken up to the last of the tensors.

    Raises
    ------
    FormatError
        If a rule of an encoding about parameters and parts is broken, or a size can't be.
    """
    resolver = _Resolver(offsets)
    by_name: dict[str, TensorEntry] = {}
    roots: dict[str, Stored] = {}
    for entry in manifest.tensors:
        try:
            root = resolver.resolve(entry.data, TensorSpec(entry.dtype, entry.shape), is_root=True)
            if entry.data.encoding == "alias":
                _check_alias(entry, by_name)
            else:
                check_tree(root)
        except FormatError as error:
            raise FormatError(f"tensor {entry.name!r}: {error}") from None
        by_name[entry.name] = entry
        roots[entry.name] = root
    _check_copies(manifest)
    return roots


def resolve_files(manifest: Manifest, offsets: Iterator[int]) -> dict[str, Stored | None]:
    """The literals of all files, by path; None for a file without one."""
    resolver = _Resolver(offsets)
    literals: dict[str, Stored | None] = {}
    for file in manifest.files:
        spec = TensorSpec("U8", (file.literal_nbytes,))
        try:
            literals[file.path] = None if file.literal is None else resolver.resolve(file.literal, spec)
        except FormatError as error:
            raise FormatError(f"file {file.path!r}: {error}") from None
    return literals


def resolve_tree(node: Node, spec: TensorSpec, offsets: Iterator[int]) -> Stored:
    """The tree of one node, whose streams are where ``offsets`` says.

    Raises
    ------
    FormatError
        As `resolve_tensors`.
    """
    return _Resolver(offsets).resolve(node, spec)


def check_tree(stored: Stored) -> int:
    """Check that no part of a tree expands further than its streams may.

    At every branch: what is made on the way to a small tensor takes memory as well.

    Returns
    -------
    int
        Bytes of all streams.

    Raises
    ------
    FormatError
        If one does.
    """
    if isinstance(stored, Leaf):
        return stored.node.nbytes
    nbytes = sum(map(check_tree, stored.parts.values()))
    if stored.spec is not None and stored.spec.nbytes > MAX_EXPANSION * nbytes + MAX_EXPANSION:
        raise FormatError(f"streams of {nbytes} bytes can't hold {stored.spec.nbytes} bytes")
    return nbytes


def require_installed(stored: Stored, what: str, providers: dict[str, str]) -> None:
    """Check that every codec and encoding of a tree is there.

    Parameters
    ----------
    stored : Stored
    what : str
        What the tree is, for the message.
    providers : dict of str to str
        Of the manifest.

    Raises
    ------
    UnknownIdError
        If one is not; the message names the package to install.
    PluginError
        If two plugins offer it.
    """
    if isinstance(stored, Leaf):
        if stored.codec is None:
            raise _missing(what, "codecs", stored.node.codec, providers)
        return
    if stored.encoding is None:
        raise _missing(what, "encodings", stored.node.encoding, providers)
    for part in stored.parts.values():
        require_installed(part, what, providers)


def _missing(what: str, kind: str, item_id: str, providers: dict[str, str]) -> CmpkError:
    """The error for an id that can't be looked up, with what to do about it."""
    need = f"{what} needs {kind.removesuffix('s')} {item_id!r}"
    rivals = registry().rivals(kind, item_id)
    if rivals:
        names = " and ".join(map(str, rivals))
        return PluginError(f"{need}, which is offered by {names}; uninstall all but one")
    provider = providers.get(item_id)
    if provider is None:
        return UnknownIdError(f"{need}, which this version of cmpk does not have")
    package = provider.partition(" ")[0]
    if not _DISTRIBUTION.fullmatch(package):
        # A file must not have a say in what is typed into a shell.
        return UnknownIdError(f"{need}; it comes with {provider!r}, which is no name of a package")
    problem = registry().problem_of(package)
    if problem:
        return UnknownIdError(f"{need}; it comes with {provider}, which is installed but broken: {problem}")
    return UnknownIdError(f"{need}; it comes with {provider}: pip install {package}")


class _Resolver:
    """Turns nodes into trees, and looks each id up once."""

    def __init__(self, offsets: Iterator[int]) -> None:
        self._offsets = offsets
        self._codecs: dict[str, tuple[Codec | None, str]] = {}
        self._encodings: dict[str, tuple[Encoding | None, str]] = {}

    def resolve(self, node: Node, spec: TensorSpec | None, *, is_root: bool = False) -> Stored:
        """The tree of a node; ``spec`` is None below an encoding that is not installed."""
        if node.codec:
            if node.codec not in self._codecs:
                self._codecs[node.codec] = _find("codecs", node.codec)
            codec, plugin = self._codecs[node.codec]
            if spec is not None:
                _check_expansion(node, spec, codec)
            return Leaf(node, next(self._offsets), spec, codec, plugin)
        if node.encoding == "alias" and not is_root:
            raise FormatError("only a whole tensor can be an alias")
        if node.encoding not in self._encodings:
            self._encodings[node.encoding] = _find("encodings", node.encoding)
        encoding, plugin = self._encodings[node.encoding]
        specs: dict[str, TensorSpec] = {}
        if encoding is not None and spec is not None:
            with blame(f"encoding {node.encoding!r}", plugin):
                specs = _part_specs(node, encoding, spec)
        parts = {name: self.resolve(part, specs.get(name)) for name, part in node.parts.items()}
        return Branch(node, spec, encoding, parts, plugin)


def _find(kind: str, item_id: str) -> tuple[Any, str]:
    """An implementation, None if it is not installed, and the plugin that it comes with."""
    found = find(kind, item_id)
    return (found.item, found.plugin) if found else (None, "")


def _part_specs(node: Node, encoding: Encoding, spec: TensorSpec) -> dict[str, TensorSpec]:
    try:
        specs = encoding.part_specs(spec, node.params)
    except FormatError as error:
        raise FormatError(f"encoding {node.encoding!r}: {error}") from None
    if list(specs) != list(node.parts):
        raise FormatError(f"encoding {node.encoding!r} has the parts {list(node.parts)}, not {list(specs)}")
    if any(part.nbytes < 0 for part in specs.values()):
        raise FormatError(f"encoding {node.encoding!r} has a part of less than no bytes")
    return specs


def _check_expansion(node: Node, spec: TensorSpec, codec: Codec | None) -> None:
    nbytes = spec.nbytes
    if nbytes > MAX_EXPANSION * node.nbytes + MAX_EXPANSION or nbytes > MAX_TENSOR_NBYTES:
        raise FormatError(f"a {node.codec} stream of {node.nbytes} bytes can't hold {nbytes} bytes")
    if codec is not None and nbytes > codec.max_expansion * node.nbytes:
        raise FormatError(f"a {node.codec} stream of {node.nbytes} bytes can't hold {nbytes} bytes")


def _check_copies(manifest: Manifest) -> None:
    own = [
        entry
        for entry in manifest.tensors
        if not (entry.data.encoding == "alias" and entry.data.params["tied"])
    ]
    nbytes = sum(TensorSpec(entry.dtype, entry.shape).nbytes for entry in own)
    stored = sum(leaf.nbytes for entry in own for leaf in leaves(entry.data))
    if nbytes > MAX_EXPANSION * (stored + len(own)):
        raise FormatError(f"{len(own)} tensors, copies among them, can't be {nbytes} bytes of {stored}")


def _check_alias(entry: TensorEntry, earlier: dict[str, TensorEntry]) -> None:
    target = earlier.get(str(entry.data.params["target"]))
    if target is None or target.data.encoding == "alias":
        raise FormatError(
            f"it is an alias of {entry.data.params['target']!r}, which is not an earlier tensor"
        )
    if (target.dtype, target.shape) != (entry.dtype, entry.shape):
        raise FormatError(f"it is an alias of {target.name!r}, but of another dtype or shape")

"""From planned trees to coded ones: the codec that pays best for every leaf, and back again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from cmpk.codecs import Codec, Zstd
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Decoder, Part, Stored, allocate
from cmpk.errors import CmpkError, CorruptStreamError, FormatError, blame
from cmpk.estimates import Sampled, estimate, expands_within, is_noise, may_repeat, order0_bound
from cmpk.format.manifest import Node, Params
from cmpk.kernels.interface import U8, Buffer
from cmpk.passes.base import Planned, Split
from cmpk.recipe import Recipe
from cmpk.registry import Registry, codec_of
from cmpk.resolve import check_tree, resolve_tree
from cmpk.sparsity import Frequent, frequent_value, sparse_forms

__all__ = [
    "Coded",
    "CodedBranch",
    "CodedLeaf",
    "Coder",
    "decoded",
    "is_believed",
    "node_of",
    "stored_nbytes",
    "uncoded",
]

_MIN_SHARE_LEFT_OUT: Final = 0.5
"""Of rarer bytes an entropy coder makes symbols of less than two bits: leaving them out gains nothing."""

_MIN_SHARE_SEEN: Final = 0.75 * _MIN_SHARE_LEFT_OUT
"""Where the sample that is counted anyway shows less, no other one is taken."""

_BRANCH_NBYTES: Final = 64
"""What a further encoding with two parts takes in the manifest, when that is compressed."""

_SKEWED_SHARE: Final = 1 / 8
"""Where a byte takes less than a bit, runs of one value are long even without any order."""


@dataclass(frozen=True, slots=True)
class CodedLeaf:
    """A stream, and the codec that made it."""

    codec: str
    stream: Buffer


@dataclass(frozen=True, slots=True)
class CodedBranch:
    """An encoding, and its parts with all streams coded."""

    encoding: str
    params: Params
    parts: dict[str, Coded]


Coded: TypeAlias = CodedLeaf | CodedBranch


class Coder:
    """A recipe's codecs at work; may be used by several threads.

    Parameters
    ----------
    recipe : Recipe
    offers : Registry

    Raises
    ------
    UnknownIdError
        If a codec is not installed.
    """

    def __init__(self, recipe: Recipe, offers: Registry) -> None:
        self._registry = offers
        self._min_saving = recipe.min_saving
        self._probe = Zstd()
        self._plugins: dict[tuple[str, str], str] = {}
        # Each with the plugin that it comes with, empty for cmpk's own.
        self._codecs: list[tuple[Codec, str]] = [
            (codec, offers.registered("codecs", codec.id).plugin) for codec in map(codec_of, recipe.codecs)
        ]

    def pays(self, nbytes: int, instead_of: int) -> bool:
        """Whether a size is enough below another to be worth it, as the recipe has it."""
        return nbytes <= instead_of * (1 - self._min_saving)

    def code(self, planned: Planned, threads: int = 1) -> Coded:
        """Code all streams of a planned tree."""
        if isinstance(planned, Split):
            parts = {name: self.code(part, threads) for name, part in planned.parts.items()}
            return CodedBranch(planned.encoding, planned.params, parts)
        return self.smallest(planned, threads)

    def smallest(self, part: Part, threads: int = 1) -> Coded:
        """Code bytes with the codec that pays best, or without a value that most of them have."""
        sampled = Sampled(part.data)
        leaf = self._smallest_leaf(part, sampled, threads)
        if part.spec.dtype == "U8" and int(sampled.counts.max()) < _MIN_SHARE_SEEN * len(sampled.sample):
            return leaf
        frequent = frequent_value(part)
        if frequent is None or frequent.share < _MIN_SHARE_LEFT_OUT:
            return leaf
        return self.sparse(part, frequent, leaf, self.smallest_leaf, threads) or leaf

    def sparse(
        self,
        part: Part,
        frequent: Frequent,
        instead_of: Coded,
        code_values: Callable[[Part, int], Coded],
        threads: int = 1,
    ) -> CodedBranch | None:
        """The smallest form without a frequent value, if it is enough below another.

        Parameters
        ----------
        part : Part
        frequent : Frequent
            What is left out.
        instead_of : Coded
            The other: with the value as a symbol of the entropy coder.
        code_values : function
            Codes the elements that are left, with so many threads.
        threads : int
        """
        best, nbytes = None, stored_nbytes(instead_of)
        if all(codec.id == "raw" for codec, _ in self._codecs):
            return None  # a recipe that compresses nothing
        for encoding, (params, parts) in sparse_forms(part, frequent):
            places, values = parts
            coded = CodedBranch(
                encoding,
                params,
                {
                    places: self.smallest_leaf(parts[places], threads),
                    values: code_values(parts[values], threads),
                },
            )
            if self.pays(stored_nbytes(coded) + _BRANCH_NBYTES, nbytes):
                best, nbytes = coded, stored_nbytes(coded) + _BRANCH_NBYTES
        return best

    def smallest_leaf(self, part: Part, threads: int = 1) -> CodedLeaf:
        """Code bytes with the codec that pays best: by estimates on all or a sample, then checked."""
        return self._smallest_leaf(part, Sampled(part.data), threads)

    def _smallest_leaf(self, part: Part, sampled: Sampled, threads: int) -> CodedLeaf:
        data = part.data
        # Each entry saves enough over the one before it to be worth its slower decoding.
        chain: list[tuple[float, Codec, str, Buffer | None]] = []
        limit = len(data) * (1 - self._min_saving)
        bound = order0_bound(sampled)
        for codec, plugin in () if is_noise(sampled) else self._codecs:
            if codec.id == "raw" or not len(data) or (codec.is_order0 and bound > limit):
                continue
            if part.is_memoryless and not codec.is_order0 and limit > len(data) * _SKEWED_SHARE:
                continue
            with blame(f"codec {codec.id!r}", plugin):
                found = estimate(codec, sampled)
            if found is not None and found.nbytes <= limit:
                chain.append((limit, codec, plugin, found.stream))
                limit = found.nbytes * (1 - self._min_saving)
        for limit, codec, plugin, estimated in reversed(chain):
            with blame(f"codec {codec.id!r}", plugin):
                stream = codec.encode(data, threads) if estimated is None else estimated
                view = None if stream is None else memoryview(stream).cast("B")  # type: ignore[arg-type]
            if view is not None and len(view) <= limit and expands_within(codec, len(view), len(data)):
                return CodedLeaf(codec.id, view)
        return CodedLeaf("raw", data)

    def smallest_if_repeated(self, part: Part, than: int, threads: int = 1) -> CodedLeaf | None:
        """Code bytes in which stretches repeat; None unless that takes enough less than a given size.

        Estimates from samples see no repetition beyond a few thousand bytes, and planes of floats none
        at all, so this looks for it and then at all of the data.

        Parameters
        ----------
        part : Part
        than : int
            Bytes that it takes otherwise.
        threads : int
        """
        codecs = [(codec, plugin) for codec, plugin in self._codecs if not codec.is_order0]
        codecs = [(codec, plugin) for codec, plugin in codecs if codec.id != "raw"]
        itemsize = DTYPES[part.spec.dtype].nbytes or 1
        if not codecs or not may_repeat(part.data, itemsize) or not self._repeats(part, than):
            return None
        best = None
        for codec, plugin in codecs:
            with blame(f"codec {codec.id!r}", plugin):
                stream = codec.encode(part.data, threads)
                view = None if stream is None else memoryview(stream).cast("B")  # type: ignore[arg-type]
            if (
                view is not None
                and self.pays(len(view), than)
                and expands_within(codec, len(view), len(part.data))
            ):
                best, than = CodedLeaf(codec.id, view), len(view)
        return best

    def _repeats(self, part: Part, than: int) -> bool:
        """Whether a fast codec that sees far comes near enough for others to be worth their time."""
        return self.pays(len(self._probe.encode(part.data)), than)

    def plugins_in(self, coded: Coded) -> dict[str, str]:
        """The codecs and encodings of a tree that plugins offer, by id, and which plugins."""
        if isinstance(coded, CodedLeaf):
            plugin = self._plugin_of("codecs", coded.codec)
            return {coded.codec: plugin} if plugin else {}
        plugin = self._plugin_of("encodings", coded.encoding)
        found = {coded.encoding: plugin} if plugin else {}
        for part in coded.parts.values():
            found |= self.plugins_in(part)
        return found

    def _plugin_of(self, kind: str, item_id: str) -> str:
        """The plugin that offers something; asked for every leaf, so the answer is kept."""
        found = self._plugins.get((kind, item_id))
        if found is None:
            found = self._plugins[kind, item_id] = self._registry.registered(kind, item_id).plugin
        return found

    def check_leaves(self, planned: Planned, coded: Coded) -> None:
        """Check that codecs of plugins give back what they were given.

        Raises
        ------
        CorruptStreamError
            If one does not.
        """
        if isinstance(planned, Split):
            if isinstance(coded, CodedBranch):
                for name, part in planned.parts.items():
                    self.check_leaves(part, coded.parts[name])
        elif self.plugins_in(coded) and decoded(coded, planned.spec).tobytes() != planned.data.tobytes():
            raise CorruptStreamError("a codec does not give back the bytes that it was given")


def node_of(coded: Coded, add_stream: Callable[[str, Buffer], Node]) -> Node:
    """The node of a tree; its streams are given, in file order, to a function that makes leaves of them."""
    if isinstance(coded, CodedLeaf):
        return add_stream(coded.codec, coded.stream)
    parts = {name: node_of(part, add_stream) for name, part in coded.parts.items()}
    return Node(encoding=coded.encoding, params=dict(sorted(coded.params.items())), parts=parts)


def uncoded(planned: Planned) -> Coded:
    """A tree with all streams as they are: enough to tell what it decodes to."""
    if isinstance(planned, Split):
        parts = {name: uncoded(part) for name, part in planned.parts.items()}
        return CodedBranch(planned.encoding, planned.params, parts)
    return CodedLeaf("raw", planned.data)


def stored_nbytes(coded: Coded) -> int:
    """Bytes of all streams of a tree."""
    if isinstance(coded, CodedLeaf):
        return len(coded.stream)
    return sum(stored_nbytes(part) for part in coded.parts.values())


def decoded(coded: Coded, spec: TensorSpec, threads: int = 1) -> U8:
    """The bytes that a reader will make of a tree, by the same way as from a file.

    Parameters
    ----------
    coded : Coded
    spec : TensorSpec
        Type and shape of the whole.
    threads : int

    Raises
    ------
    FormatError
        If no reader would take it.
    """
    stored, streams = _resolved(coded, spec)
    decoder = Decoder(lambda leaf: streams[leaf.offset], threads)
    out = allocate(spec.nbytes)
    decoder.decode_into(stored, 0, spec.numel, out)
    decoder.flush()
    return out


def is_believed(coded: Coded, spec: TensorSpec) -> bool:
    """Whether a reader believes so few bytes to hold a tensor and all that is made on the way to it.

    What a plugin got wrong is believed here, and found out when it is read back.
    """
    try:
        stored, _ = _resolved(coded, spec)
    except CmpkError:
        return True
    try:
        check_tree(stored)
    except FormatError:
        return False
    return True


def _resolved(coded: Coded, spec: TensorSpec) -> tuple[Stored, list[memoryview]]:
    """A tree whose leaves have, instead of a place in a file, one in the list of streams."""
    streams: list[memoryview] = []

    def add_stream(codec: str, stream: Buffer) -> Node:
        streams.append(memoryview(stream).cast("B"))  # type: ignore[arg-type]
        return Node(codec=codec, nbytes=len(streams[-1]))

    node = node_of(coded, add_stream)
    return resolve_tree(node, spec, iter(range(len(streams)))), streams

"""What every encoding must do (`cmpk.encodings.Encoding`), checked on all that it may meet."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpk.codecs import Bitpack, Huffman, Raw, Zstd
from cmpk.codecs.base import Codec
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import FloatSplit
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Leaf, Part, Stored, byte_range
from cmpk.errors import FormatError
from cmpk.format import Node
from cmpk.format.layout import MAX_PARTS, MAX_TENSOR_NBYTES
from cmpk.format.manifest import Params
from cmpk.kernels.interface import FLOAT_LAYOUTS
from cmpk.offers import flaw_of
from cmpk.testing.limits import Hang, active_settings, fail, filled, outcome_of
from cmpk.testing.strategies import damaged, sized_bytes, tensor_parts

__all__ = ["check_encoding"]

Encode = Callable[[Part], Encoded | None]

_CODECS: Final[tuple[Codec, ...]] = (Raw(), Zstd(), Huffman(), Bitpack())
"""Two that the kernels decode on the way to a tensor, one that they do not, and none."""

_THREADS: Final = 3

_MAX_DAMAGED_NBYTES: Final = 1 << 20


def check_encoding(
    encoding: Encoding,
    encode: Encode,
    *,
    parts: st.SearchStrategy[Part] | None = None,
    lossless: bool = True,
) -> None:
    """Check an encoding; call it from a test of your plugin.

    - What it encodes decodes to the same bytes, whatever its parts are stored with, nested ones
      included; any range of it decodes to that slice; threads make no difference.
    - ``part_specs`` promises just the parts that were made, and refuses parameters and tensors that
      are not its own with FormatError.
    - Damaged parts raise CorruptStreamError or decode to some bytes, always the same; no other error,
      no hang, no write outside the output, no more memory than the sizes justify.

    Hypothesis settings are those of the active profile.

    Parameters
    ----------
    encoding : Encoding
    encode : function
        Encodes a part, as a pass would; None for one that the encoding does not take.
    parts : strategy of Part, optional
        Tensors to try; `tensor_parts` by default.
    lossless : bool
        False for an encoding that keeps its tensors only nearly: ranges are then held against the
        whole, and you check the error yourself.

    Raises
    ------
    AssertionError
        If it does something else. The message tells what, on which tensor.
    """
    flaw = flaw_of("encodings", getattr(encoding, "id", None), encoding)
    if flaw:
        fail(f"{encoding!r} can't be registered: {flaw}")
    parts = tensor_parts() if parts is None else parts
    try:
        _check_round_trip(encoding, encode, parts, lossless)
        _check_damaged_parts(encoding, encode, parts)
        _check_damaged_params(encoding, encode, parts)
    except Hang as hang:
        raise AssertionError(str(hang)) from None


def _check_round_trip(
    encoding: Encoding, encode: Encode, parts: st.SearchStrategy[Part], lossless: bool
) -> None:
    taken = 0

    @active_settings()
    @given(st.data())
    def round_trip(drawn: st.DataObject) -> None:
        nonlocal taken
        part = drawn.draw(parts, "part")
        before = part.data.tobytes()
        part.data.flags.writeable = False
        encoded = encode(part)
        if part.data.tobytes() != before:
            fail("encode changed its input")
        if encoded is None:
            return
        taken += 1
        _check_parts(encoding, part.spec, encoded)
        streams: list[bytes] = []
        stored = _stored(drawn, encoding, part.spec, encoded, streams)
        whole = _decode(stored, streams, 0, part.spec.numel)
        if lossless and whole != before:
            fail(f"{part.spec} comes back changed, stored as {_shown(stored)}")
        if _decode(stored, streams, 0, part.spec.numel, _THREADS) != whole:
            fail(f"{part.spec} is another with {_THREADS} threads, stored as {_shown(stored)}")
        for start, stop in drawn.draw(st.lists(_element_range(part.spec), max_size=3), "ranges"):
            if _decode(stored, streams, start, stop) != whole[byte_range(part.spec, start, stop)]:
                fail(f"elements {start} to {stop} of {part.spec} are not that slice, {_shown(stored)}")

    round_trip()
    if not taken:
        fail(f"encoding {encoding.id!r} took no tensor that was tried; pass `parts` that it takes")


def _check_parts(encoding: Encoding, spec: TensorSpec, encoded: Encoded) -> None:
    """Check that the parts are what the parameters promise, and can be written to a manifest."""
    params = encoded.params
    for name, value in params.items():
        values = value if isinstance(value, list) else [value]
        integers = [item for item in values if type(item) is int and -(1 << 63) <= item < 1 << 63]
        if len(integers) < len(values) and not isinstance(value, str):
            fail(f"the parameter {name!r} is {value!r}, not an int64, a string or a list of int64")
    promised = encoding.part_specs(spec, _ascending(params))
    made = {name: part.spec for name, part in encoded.parts.items()}
    if list(promised.items()) != list(made.items()):
        fail(f"part_specs promises {promised} for {spec} and {params}, but the parts are {made}")
    if len(made) > MAX_PARTS:
        fail(f"there are {len(made)} parts, a file holds at most {MAX_PARTS}")
    for name, part in encoded.parts.items():
        if part.data.dtype != np.uint8 or part.data.shape != (part.spec.nbytes,):
            fail(f"part {name!r}: {part.spec} takes {part.spec.nbytes} bytes of uint8, not {part.data.shape}")


def _check_damaged_parts(encoding: Encoding, encode: Encode, parts: st.SearchStrategy[Part]) -> None:
    @active_settings()
    @given(st.data())
    def damaged_parts(drawn: st.DataObject) -> None:
        part = drawn.draw(parts, "part")
        encoded = encode(part)
        if encoded is None or not encoded.parts:
            return
        name = drawn.draw(st.sampled_from(list(encoded.parts)), "damaged part")
        victim = encoded.parts[name]
        data = drawn.draw(damaged(victim.data.tobytes(), keep_length=True), "its bytes")
        encoded.parts[name] = Part(victim.spec, np.frombuffer(data, np.uint8))
        start, stop = drawn.draw(_element_range(part.spec), "range")
        _check_outcome(drawn, encoding, part.spec, encoded, start, stop)

    damaged_parts()


def _check_damaged_params(encoding: Encoding, encode: Encode, parts: st.SearchStrategy[Part]) -> None:
    """Other parameters, or the parameters of another tensor: refused, or decoded from any parts."""

    @active_settings()
    @given(st.data())
    def damaged_params(drawn: st.DataObject) -> None:
        part, other = drawn.draw(parts, "part"), drawn.draw(parts, "tensor")
        encoded = encode(part)
        if encoded is None:
            return
        spec = drawn.draw(st.sampled_from([part.spec, other.spec]), "spec")
        params = drawn.draw(_damaged_params(encoded.params), "params")
        try:
            specs = encoding.part_specs(spec, params)
        except FormatError:
            return
        except Exception as error:
            raise AssertionError(
                f"part_specs({spec}, {params}): {type(error).__name__} instead of FormatError"
            ) from error
        nbytes = 0
        for name, promised in specs.items():
            _check_promised(name, promised, f"part_specs({spec}, {params})")
            nbytes += promised.nbytes
        if len(specs) > MAX_PARTS or nbytes + spec.nbytes > _MAX_DAMAGED_NBYTES:
            return  # a reader refuses such parts, or finds no streams of such sizes
        shape = drawn.draw(st.sampled_from(["noise", "one symbol", "low bits"]), "bytes")
        made = {name: Part(promised, sized_bytes(shape, promised.nbytes)) for name, promised in specs.items()}
        start, stop = drawn.draw(_element_range(spec), "range")
        _check_outcome(drawn, encoding, spec, Encoded(params, made), start, stop)

    damaged_params()


def _check_promised(name: str, spec: TensorSpec, what: str) -> None:
    if spec.dtype not in DTYPES or any(type(size) is not int or size < 0 for size in spec.shape):
        fail(f"{what} promises {name!r} as {spec}, which no tensor can be")
    if spec.numel * DTYPES[spec.dtype].nbits % 8 or spec.nbytes > MAX_TENSOR_NBYTES:
        fail(f"{what} promises {name!r} as {spec}, which are no whole bytes or too many")


def _check_outcome(
    drawn: st.DataObject, encoding: Encoding, spec: TensorSpec, encoded: Encoded, start: int, stop: int
) -> None:
    streams: list[bytes] = []
    stored = _stored(drawn, encoding, spec, encoded, streams)
    nbytes = spec.nbytes + sum(part.spec.nbytes for part in encoded.parts.values())
    what = f"encoding {encoding.id!r}, {spec}, {dict(encoded.params)}, elements {start} to {stop}"
    outcome_of(functools.partial(_decode, stored, streams, start, stop, runs=2), nbytes, what)


def _stored(
    drawn: st.DataObject, encoding: Encoding, spec: TensorSpec, encoded: Encoded, streams: list[bytes]
) -> Branch:
    """The tree of an encoded tensor, its parts coded as is drawn; appends its streams."""
    parts = {name: _stored_part(drawn, part, streams) for name, part in encoded.parts.items()}
    node = Node(encoding=encoding.id, params=_ascending(encoded.params))
    return Branch(node, spec, encoding, parts)


def _stored_part(drawn: st.DataObject, part: Part, streams: list[bytes]) -> Stored:
    if part.spec.dtype in FLOAT_LAYOUTS and drawn.draw(st.booleans(), "split further"):
        encoded = FloatSplit().encode(part.data, part.spec, 0, 0)
        return _stored(drawn, FloatSplit(), part.spec, encoded, streams)
    codec = drawn.draw(st.sampled_from(_CODECS), "codec")
    stream = codec.encode(part.data)
    if stream is None:
        codec, stream = Raw(), part.data
    streams.append(memoryview(stream).tobytes())  # type: ignore[arg-type]
    return Leaf(Node(codec=codec.id, nbytes=len(streams[-1])), len(streams) - 1, part.spec, codec)


def _decode(
    stored: Stored, streams: list[bytes], start: int, stop: int, threads: int = 1, runs: int = 1
) -> bytes:
    def decode(out: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        decoder = Decoder(lambda leaf: memoryview(streams[leaf.offset]), threads)
        decoder.decode_into(stored, start, stop, out)
        decoder.flush()

    spec = stored.spec or TensorSpec("U8", (0,))
    cut = byte_range(spec, start, stop)
    return filled(cut.stop - cut.start, decode, runs)


def _ascending(params: Params) -> Params:
    """As the packer writes them and a reader finds them."""
    return dict(sorted(params.items()))


def _shown(stored: Stored) -> str:
    if isinstance(stored, Leaf):
        return stored.node.codec
    parts = ", ".join(f"{name}: {_shown(part)}" for name, part in stored.parts.items())
    return f"{stored.node.encoding}{stored.node.params}({parts})"


def _element_range(spec: TensorSpec) -> st.SearchStrategy[tuple[int, int]]:
    """Ranges of elements that begin and end at whole bytes, empty ones included."""
    step = 8 // math.gcd(DTYPES[spec.dtype].nbits, 8)
    ends = st.integers(0, spec.numel // step).map(lambda end: end * step)
    return st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair)))


_NUMBERS: Final = st.sampled_from([-(1 << 63), -1, 0, 1, 2, 255, 256, 65536, 1 << 31, 1 << 48, (1 << 63) - 1])
_VALUES: Final[st.SearchStrategy[int | str | list[int]]] = (
    _NUMBERS | st.sampled_from(["", "F16", "F32", "x"]) | st.lists(_NUMBERS, max_size=4)
)


def _damaged_params(params: Params) -> st.SearchStrategy[Params]:
    """Parameters with one value changed, left out or added, or as they are."""
    names = st.sampled_from([*params, "surplus"])
    changed = st.builds(lambda name, value: _ascending({**params, name: value}), names, _VALUES)
    left_out = names.map(lambda name: {key: value for key, value in params.items() if key != name})
    return changed | left_out | st.just(_ascending(params))

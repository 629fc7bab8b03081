"""Valid vectors: the container and its manifest (spec/container.md)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence

from .assemble import Object, branch, file, leaf, manifest, one, tensor
from .cases import NBITS, Valid, container_example, raw
from .streams import balanced, frame, frame_of_runs, huffman, noise, raw_block, rle_block, zstd

__all__ = [
    "attachments",
    "container",
    "elements",
    "expansion",
    "inputs",
    "qualities",
    "repeated",
    "safetensors",
]


def shortened(text: bytes) -> bytes:
    """A frame of the JSON below, whose long run takes few blocks."""
    n = text.count(b"ab")
    head, _, tail = text.partition(b"ab" * n)
    return frame_of_runs((head, 1), (b"ab", n), (tail, 1))


def container() -> Iterator[Valid]:
    """container.md, sections 2, 3 and 5."""
    yield container_example()
    yield Valid("container-no-tensors", manifest())
    yield Valid("container-no-producer", manifest(producer=""))
    content = one("U8", [3], b"\1\2\3", raw(b"\1\2\3"))
    yield Valid(
        "container-manifest-frame", content, {"store": lambda text: frame(len(text), raw_block(text))}
    )
    yield Valid(
        "container-manifest-compressed", manifest(metadata={"notes": "ab" * 40000}), {"store": shortened}
    )
    # From one byte more on, a manifest must not expand as far.
    most = ((1 << 20) - len('{"producer":"make_vectors","metadata":{"note":""}}')) // 2
    yield Valid(
        "container-manifest-of-a-mebibyte", manifest(metadata={"note": "ab" * most}), {"store": shortened}
    )
    yield Valid(
        "container-every-member",
        manifest(
            [tensor("a", "U8", [3], b"\1\2\3", raw(b"\1\2\3"))],
            [file("b", b"xy", [{"literal": 2}], raw(b"xy"))],
            recipe="lossless",
            calibration="0123456789abcdef" * 4,
            metadata={"z": "in the order given", "a": "", "": "no name"},
            providers={"another": "cmpk-another 1.2", "one-more": "cmpk-one-more 0.1"},
        ),
    )
    names = [
        "",
        "a b/c\\d",
        "Größe",
        "权重",
        "👩‍👩‍👧",
        "e\u0301",
        "\u0000\b\t\n\u000b\f\r\u001b\"'",
        "\u007f\u0080\u2028\ufeff\uffff",
    ]
    names += ["w" * 4096, "é" * 2048, "../../etc/passwd", "__metadata__"]
    entries = [tensor(name, "U8", [1], bytes([i]), raw(bytes([i]))) for i, name in enumerate(names)]
    yield Valid("container-names", manifest(entries, metadata={"日本": "\u0001\u001f\u007f\U0010ffff"}))
    large, small = noise(4096), noise(4095, 2)
    entries = [
        tensor("first", "U8", [1], b"x", raw(b"x")),
        tensor("aligned", "F32", [32, 32], large, raw(large)),
        tensor("close", "U8", [4095], small, raw(small)),
    ]
    yield Valid("container-alignment", manifest(entries))
    entries = [tensor(name, "U8", [4096], large, raw(large)) for name in ("at 64", "at 4160")]
    yield Valid("container-alignment-from-the-start", manifest(entries))
    many = [tensor(f"layer.{i}.bias", "I8", [i], noise(i), raw(noise(i))) for i in range(12)]
    yield Valid("container-many-tensors", manifest(many))


def elements() -> Iterator[Valid]:
    """container.md, sections 3.1 and 4."""
    entries = []
    for i, (dtype, nbits) in enumerate(NBITS.items()):
        data = bytes(byte & 1 for byte in noise(8)) if dtype == "BOOL" else noise(8 * nbits // 8, i)
        entries.append(tensor(dtype, dtype, [2, 4], data, raw(data)))
    yield Valid("dtypes", manifest(entries))
    whole = [(dtype, nbits) for dtype, nbits in NBITS.items() if nbits % 8 == 0]
    entries = [tensor(dtype, dtype, [], noise(nbits // 8), raw(noise(nbits // 8))) for dtype, nbits in whole]
    yield Valid("dtypes-without-dimensions", manifest(entries))
    shapes = [[0, 3], [1 << 48, 0, 1 << 48, 1 << 48]]
    entries = [tensor(f"{dtype} {shape}", dtype, shape, b"", raw(b"")) for dtype in NBITS for shape in shapes]
    yield Valid("dtypes-empty", manifest(entries))
    deep = [1] * 62 + [2, 1]
    yield Valid("shape-of-rank-64", one("U16", deep, noise(4), raw(noise(4))))
    packed = [("F4", [1, 2], 1), ("F4", [2, 1, 5], 5), ("F6_E2M3", [4], 3), ("F6_E3M2", [3, 4], 9)]
    entries = [
        tensor(f"{dtype} {shape}", dtype, shape, noise(n), raw(noise(n))) for dtype, shape, n in packed
    ]
    yield Valid("dtypes-under-eight-bits", manifest(entries))


def safetensors(tensors: Sequence[tuple[str, str, list[int], bytes]]) -> tuple[bytes, bytes]:
    """Header and data of a safetensors file."""
    header = {}
    at = 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, b"".join(data for *_, data in tensors)


def qualities() -> Iterator[Valid]:
    """container.md, section 3.1.1."""
    most = (1 << 63) - 1
    names = ["error_ppb", "cosine_ppb", "zeros", "pruned_millibits", "quantized_millibits", "coded_millibits"]
    figures: list[dict[str, int]] = [{}, dict.fromkeys(names, 1), dict.fromkeys(names, most)]
    figures += [{name: 7} for name in names]
    entries = [
        tensor(str(i), "U8", [1], bytes([i]), raw(bytes([i])), quality=quality)
        for i, quality in enumerate(figures)
    ]
    yield Valid("quality-figures", manifest(entries))


def repeated(n: int) -> Object:
    """A tree of 30 stored bytes for ``n`` times one F64, 131,072 < n <= 262,144: codes into a list of one."""
    blocks = rle_block(0, 1 << 17), rle_block(0, n - (1 << 17))
    codes = leaf("zstd", zstd([frame(n, *blocks)]))
    return branch("codebook", {"size": 1}, codes=codes, centroids=raw(noise(8)))


def copied(n_copies: int) -> Object:
    """A tensor of zeros in 34 stored bytes, of a size that three copies may have; tied ones do not count."""
    n = 65536 * (34 + 1 + 3) // (1 + 3)
    blocks = [rle_block(0, min(1 << 17, n - start)) for start in range(0, n, 1 << 17)]
    stored = leaf("zstd", zstd([frame(n, *blocks)]))
    entries = [tensor("a", "U8", [n], bytes(n), stored)]
    for i in range(2 * n_copies):
        alias = branch("alias", {"target": "a", "tied": i % 2})
        entries.append(tensor(f"copy{i}", "U8", [n], bytes(n), alias))
    return manifest(entries)


def expansion() -> Iterator[Valid]:
    """container.md, section 3.2: as much as a tree may decode to."""
    n = 65536 * (30 + 1) // 8
    yield Valid("expansion-of-a-tree", one("F64", [n], noise(8) * n, repeated(n)))
    yield Valid("expansion-of-copies", copied(3))


def inputs() -> Iterator[Valid]:
    """container.md, section 3.1.2."""
    pairs = [
        [0, 0],
        [0xC1200000, 0x41200000],  # -10 and 10
        [0xFF7FFFFF, 0x7F7FFFFF],  # as far as it goes
        [0x80000000, 0],
        [0, 0x80000000],  # the same numbers
        [0x80000001, 1],  # the smallest
    ]
    entries = [
        tensor(
            str(i),
            "U8",
            [1],
            bytes([i]),
            raw(bytes([i])),
            quality={"zeros": 1} if i % 2 else None,
            input={"minmax": pair, "percentile": pairs[i - 1], "mse": pairs[i - 2]},
        )
        for i, pair in enumerate(pairs)
    ]
    yield Valid("input-ranges", manifest(entries))


def attachments() -> Iterator[Valid]:
    """container.md, section 3.3."""
    config = b'{"model_type": "bert"}\n'
    vocabulary = b"".join(b"token%d\n" % i for i in range(40))
    lengths = balanced(set(vocabulary))
    entries = [
        file("config.json", config, [{"literal": len(config)}], raw(config)),
        file("empty", b"", []),
        file("1_Pooling/config.json", b"{}", [{"literal": 2}], raw(b"{}")),
        file("1_Pooling-2", b"{}", [{"literal": 1}, {"literal": 1}], raw(b"{}")),
        file(
            "vocab.txt",
            vocabulary,
            [{"literal": len(vocabulary)}],
            leaf("huffman", huffman(vocabulary, lengths)),
        ),
        file(
            "zeros",
            bytes(70000),
            [{"literal": 70000}],
            leaf("zstd", zstd([frame(70000, rle_block(0, 70000))])),
        ),
        file("ü/…/.hidden/a..b/c: d", b"!", [{"literal": 1}], raw(b"!")),
        file("x" * 4096, b"!", [{"literal": 1}], raw(b"!")),
    ]
    yield Valid("files-attachments", manifest(files=entries))

    rows = [
        ("a", "F32", [2], noise(8)),
        ("b", "U8", [0], b""),
        ("c", "BF16", [3], noise(6, 2)),
        ("d", "F32", [2], noise(8)),
    ]
    header, data = safetensors(rows)
    target = branch("alias", {"target": "a", "tied": 0})
    tensors = [tensor(*row, target if row[0] == "d" else raw(row[3])) for row in rows]
    whole = file("model.safetensors", header + data, [{"literal": len(header)}, {"count": 4}], raw(header))
    yield Valid("files-safetensors", manifest(tensors, [whole]))

    figures = {"error_ppb": 1953125, "cosine_ppb": 2, "zeros": 1, "coded_millibits": 32000}
    lossy = [tensor(*row, raw(row[3])) for row in rows[:3]] + [tensor(*rows[3], target)]
    lossy[0] = tensor(*rows[0], raw(rows[0][3]), quality=figures)
    segments = [{"literal": len(header)}, {"count": 4}]
    without = file("model.safetensors", header + data, segments, raw(header), sha256="")
    yield Valid("files-of-a-lossy-tensor", manifest(lossy, [without]))
    lossy = [lossy[0], *tensors[1:]]
    parts = [
        file("a", rows[0][3], [{"count": 1}], sha256=""),
        file("b", rows[1][3] + rows[2][3], [{"first": 1, "count": 2}]),
        file("d", rows[3][3], [{"first": 3, "count": 1}], sha256=""),
    ]
    yield Valid("files-with-and-without-a-digest", manifest(lossy, parts))

    merged = [*tensors[:3], tensor(*rows[3], target, quality={"error_ppb": 7})]
    parts = [
        file("a", rows[0][3] + rows[1][3] + rows[2][3], [{"count": 3}]),
        file("d", rows[3][3], [{"first": 3, "count": 1}], sha256=""),
    ]
    yield Valid("files-of-a-merged-tensor", manifest(merged, parts))

    gap = b"\0\0\0"
    mixed = header + rows[0][3] + gap + rows[0][3] + gap
    segments = [
        {"literal": len(header)},
        {"count": 2},
        {"literal": 3},
        {"first": 3, "count": 1},
        {"literal": 3},
    ]
    shards = [
        file("shard-1.safetensors", mixed, segments, raw(header + gap + gap)),
        file("shard-2.bin", rows[2][3], [{"first": 2, "count": 1}]),
    ]
    yield Valid("files-two-shards", manifest(tensors, shards))

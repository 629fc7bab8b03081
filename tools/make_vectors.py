"""Writes the golden files of spec/vectors.

    python -m tools.make_vectors [DIRECTORY]

They are assembled from hand-made parts by ``tools/vectors``, without the package that they test, and
are the same on every run. Each is kept in the repository; a change of one is a change of the format,
or of what was wrong with the vector.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tools.vectors import (
    invalid_codebooks,
    invalid_codecs,
    invalid_container,
    invalid_encodings,
    invalid_manifest,
    invalid_products,
    invalid_scales,
    invalid_sparse,
)
from tools.vectors.cases import Invalid, Valid
from tools.vectors.valid_codebooks import codebooks_of_vectors_page
from tools.vectors.valid_codecs import bitpack_page, huffman_page, rans_page, zstd_page
from tools.vectors.valid_container import attachments, container, elements, expansion, inputs, qualities
from tools.vectors.valid_encodings import (
    alias_page,
    codebook_page,
    float_split_page,
    narrow_page,
    nested,
    row_groups_page,
)
from tools.vectors.valid_products import product_page
from tools.vectors.valid_scales import affine_page, cast_page
from tools.vectors.valid_sparse import bitmask_page, gap_index_page

VECTORS = Path(__file__).resolve().parent.parent / "spec" / "vectors"


def valid_vectors() -> list[Valid]:
    """In the order of the pages."""
    return [
        *container(),
        *elements(),
        *qualities(),
        *expansion(),
        *inputs(),
        *attachments(),
        *zstd_page(),
        *bitpack_page(),
        *huffman_page(),
        *rans_page(),
        *float_split_page(),
        *narrow_page(),
        *row_groups_page(),
        *codebook_page(),
        *alias_page(),
        *nested(),
        *affine_page(),
        *bitmask_page(),
        *gap_index_page(),
        *cast_page(),
        *codebooks_of_vectors_page(),
        *product_page(),
    ]


def invalid_vectors() -> list[Invalid]:
    """In the order of the pages."""
    pages = [
        invalid_container.file_layout,
        invalid_container.manifest_frame,
        invalid_container.json_form,
        invalid_container.json_values,
        invalid_manifest.tensor_entries,
        invalid_manifest.qualities,
        invalid_manifest.inputs,
        invalid_manifest.nodes,
        invalid_manifest.expansion,
        invalid_manifest.unknown_ids,
        invalid_manifest.file_paths,
        invalid_manifest.file_entries,
        invalid_manifest.lossy_files,
        invalid_container.stream_places,
        invalid_codecs.raw_streams,
        invalid_codecs.zstd_streams,
        invalid_codecs.bitpack_streams,
        invalid_codecs.huffman_heads,
        invalid_codecs.huffman_bits,
        invalid_codecs.huffman_sync_points,
        invalid_codecs.rans_streams,
        invalid_encodings.aliases,
        invalid_encodings.float_splits,
        invalid_encodings.float_splits_values,
        invalid_encodings.narrows,
        invalid_encodings.row_groupings,
        invalid_encodings.codebooks,
        invalid_scales.affines,
        invalid_scales.affines_values,
        invalid_sparse.bitmasks,
        invalid_sparse.bitmasks_values,
        invalid_sparse.gap_indices,
        invalid_scales.casts,
        invalid_codebooks.codebooks_of_vectors,
        invalid_codebooks.codebooks_of_vectors_parts,
        invalid_products.products,
    ]
    return [vector for page in pages for vector in page()]


def rows(table: dict[str, object], indent: str) -> str:
    """An object in JSON, a line for each member."""
    members = ",\n".join(f"{indent} {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items())
    return f"{{\n{members}\n{indent}}}" if members else "{}"


def main() -> None:
    """Write all vectors and what is expected of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=VECTORS)
    directory = parser.parse_args().directory
    for kind in ("valid", "invalid"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
    valid, invalid = valid_vectors(), invalid_vectors()
    for vectors in (valid, invalid):
        names = [vector.name for vector in vectors]
        if len(set(names)) < len(names):
            raise ValueError(f"a name is taken twice: {sorted(n for n in names if names.count(n) > 1)}")
    for vector in valid:
        (directory / "valid" / f"{vector.name}.cmpk").write_bytes(vector.to_bytes())
        tables = ",\n".join(f' "{kind}": {rows(table, " ")}' for kind, table in vector.expected().items())
        (directory / "valid" / f"{vector.name}.json").write_text(f"{{\n{tables}\n}}\n", encoding="ascii")
    expected: dict[str, object] = {}
    for broken in invalid:
        (directory / "invalid" / f"{broken.name}.cmpk").write_bytes(broken.data)
        expected[broken.name] = {"rule": broken.rule, "error": broken.error, "found_by": broken.found_by}
    (directory / "invalid" / "expected.json").write_text(rows(expected, "") + "\n", encoding="ascii")


if __name__ == "__main__":
    main()

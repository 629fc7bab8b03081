"""Writes the golden files of spec/vectors.

    python tools/make_vectors.py [DIRECTORY]

They are assembled from hand-made parts by ``tools/vectors``, without the package that they test, and
are the same on every run. Each is kept in the repository; a change of one is a change of the format,
or of what was wrong with the vector.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vectors.cases import Invalid, Valid
from vectors.valid_codecs import bitpack_page, huffman_page, zstd_page
from vectors.valid_container import attachments, container, elements
from vectors.valid_encodings import (
    alias_page,
    codebook_page,
    float_split_page,
    narrow_page,
    nested,
    row_groups_page,
)

VECTORS = Path(__file__).resolve().parent.parent / "spec" / "vectors"


def valid_vectors() -> list[Valid]:
    """In the order of the pages."""
    return [
        *container(),
        *elements(),
        *attachments(),
        *zstd_page(),
        *bitpack_page(),
        *huffman_page(),
        *float_split_page(),
        *narrow_page(),
        *row_groups_page(),
        *codebook_page(),
        *alias_page(),
        *nested(),
    ]


def invalid_vectors() -> list[Invalid]:
    """In the order of the pages."""
    return []


def write_json(path: Path, value: object) -> None:
    """Write for people and programs."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", encoding="ascii")


def main() -> None:
    """Write all vectors and what is expected of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=VECTORS)
    directory = parser.parse_args().directory
    for kind in ("valid", "invalid"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
    for vector in valid_vectors():
        (directory / "valid" / f"{vector.name}.cmpk").write_bytes(vector.to_bytes())
        write_json(directory / "valid" / f"{vector.name}.json", vector.expected())
    expected = {}
    for broken in invalid_vectors():
        (directory / "invalid" / f"{broken.name}.cmpk").write_bytes(broken.data)
        expected[broken.name] = {"rule": broken.rule, "error": broken.error, "found_by": broken.found_by}
    write_json(directory / "invalid" / "expected.json", expected)


if __name__ == "__main__":
    main()

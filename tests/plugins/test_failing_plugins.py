"""Plugins that fail at work: the error names them, and no bad file is left behind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import cmpk
import cmpk.numpy
from cmpk.format import ContainerWriter, Manifest, TensorEntry
from cmpk.recipe import PassUse, Recipe, Rule
from tests.plugins.packages import FLIP, NIBBLES, Install

RUNS = np.repeat(np.arange(200, dtype=np.uint8), 10).reshape(20, 100)
FLIPS = Recipe("flips", codecs=("raw", "flip"))
HALVES = Recipe("halves", codecs=("raw", "zstd"), rules=(Rule((PassUse("halve"),)),))


@pytest.fixture
def flip_file(install: Install, tmp_path: Path) -> Path:
    """A file that needs a codec, which is installed and works."""
    install("cmpk-flip", FLIP)
    cmpk.pack({"runs": RUNS}, tmp_path / "flip.cmpk", recipe=FLIPS)
    return tmp_path / "flip.cmpk"


@pytest.fixture
def nibbles_file(install: Install, tmp_path: Path) -> Path:
    """A file that needs an encoding, which is installed and works."""
    install("cmpk-nibbles", NIBBLES)
    cmpk.pack({"runs": RUNS}, tmp_path / "nibbles.cmpk", recipe=HALVES)
    return tmp_path / "nibbles.cmpk"


def with_first_line(code: str, function: str, line: str) -> str:
    """Code with a line put before all that a function does."""
    head, found, rest = code.partition(f"    def {function}(")
    signature, _, body = rest.partition("\n")
    assert found, function
    return f"{head}{found}{signature}\n        {line}\n{body}"


RAISES = {
    "raise KeyError('table')": "KeyError: 'table'",
    "raise MemoryError": "MemoryError: ",
    "raise AssertionError": "AssertionError: ",
    "(lambda f: f(f))(lambda f: f(f))": "RecursionError: ",
}

whatever_it_raises = pytest.mark.parametrize(("line", "told"), RAISES.items())


@whatever_it_raises
def test_whatever_a_codec_raises_while_reading_is_an_error_that_names_it(
    line: str, told: str, flip_file: Path, install: Install
) -> None:
    install("cmpk-flip", with_first_line(FLIP, "decode_range", line))
    with cmpk.open(flip_file) as archive:
        archive.verify()
        for decode in (
            lambda: archive.read("runs"),
            lambda: archive.read_range("runs", 0, 5),
            lambda: archive.verify(deep=True),
            lambda: cmpk.numpy.load_file(flip_file),
        ):
            with pytest.raises(cmpk.PluginError) as caught:
                decode()
            assert str(caught.value).startswith(
                f"tensor 'runs': codec 'flip' of cmpk-flip 1.0 failed: {told}"
            )


@whatever_it_raises
def test_whatever_an_encoding_raises_while_reading_is_an_error_that_names_it(
    line: str, told: str, nibbles_file: Path, install: Install
) -> None:
    install("cmpk-nibbles", with_first_line(NIBBLES, "decode_range", line))
    with cmpk.open(nibbles_file) as archive, pytest.raises(cmpk.PluginError) as caught:
        archive.read("runs")
    assert str(caught.value).startswith(
        f"tensor 'runs': encoding 'nibbles' of cmpk-nibbles 1.0 failed: {told}"
    )


@pytest.mark.parametrize(
    "line",
    [
        "return None",
        "return {'lower': 1, 'upper': 2}",
        "return {'lower': spec, 'upper': TensorSpec('U9', (1,))}",
        "raise KeyError",
    ],
)
def test_an_encoding_that_can_not_tell_its_parts_is_named_when_the_file_is_opened(
    line: str, nibbles_file: Path, install: Install
) -> None:
    install("cmpk-nibbles", with_first_line(NIBBLES, "part_specs", line))
    with pytest.raises(cmpk.PluginError, match=r"encoding 'nibbles' of cmpk-nibbles 1\.0 failed: "):
        cmpk.open(nibbles_file)


def test_what_a_codec_calls_corrupt_stays_so(install: Install, tmp_path: Path) -> None:
    install("cmpk-flip", FLIP)
    sink = io.BytesIO()
    writer = ContainerWriter(sink)
    node = writer.add_stream("flip", b"\0\7\0")
    entry = TensorEntry(name="runs", dtype="U8", shape=(7,), blake3="0" * 64, data=node)
    writer.finish(Manifest(producer="", providers={"flip": "cmpk-flip 1.0"}, tensors=[entry]))
    (tmp_path / "damaged.cmpk").write_bytes(sink.getvalue())
    with (
        cmpk.open(tmp_path / "damaged.cmpk") as archive,
        pytest.raises(cmpk.CorruptStreamError, match="tensor 'runs': codec 'flip': the runs do not add up"),
    ):
        archive.read("runs")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("function", "line", "message"),
    [
        ("encode", "raise KeyError('table')", "^codec 'flip' of cmpk-flip 1.0 failed: KeyError: 'table'$"),
        ("encode", "return 'text'", "^codec 'flip' of cmpk-flip 1.0 failed: TypeError: "),
        ("encode", "return 5", "^codec 'flip' of cmpk-flip 1.0 failed: TypeError: "),
        ("encode", "data[:] = 0", "^codec 'flip' of cmpk-flip 1.0 failed: ValueError: .*read-only"),
        ("encode", "return bytes(100)", "^what cmpk-flip 1.0 made of 'runs' can't be read back: "),
        ("decode_range", "out[:] = 0; return", "what cmpk-flip 1.0 .*'runs' can't be read back: .*BLAKE3"),
        (
            "decode_range",
            "raise KeyError('table')",
            "what cmpk-flip 1.0 .* can't be read back: .*KeyError: 'table'",
        ),
    ],
)
def test_a_codec_that_fails_at_packing_is_named_and_leaves_no_file(
    function: str, line: str, message: str, jobs: int, install: Install, tmp_path: Path
) -> None:
    install("cmpk-flip", with_first_line(FLIP, function, line))
    (tmp_path / "out").mkdir()
    given = RUNS.copy()
    with pytest.raises(cmpk.PluginError, match=message):
        cmpk.pack({"runs": given}, tmp_path / "out" / "flip.cmpk", recipe=FLIPS, jobs=jobs)
    assert list((tmp_path / "out").iterdir()) == []
    assert given.tobytes() == RUNS.tobytes()


def test_an_estimate_that_fails_is_named(install: Install, tmp_path: Path) -> None:
    estimate = "    def estimate(self, data):\n        return 'small'\n\n    def encode("
    install("cmpk-flip", FLIP.replace("    def encode(", estimate))
    with pytest.raises(cmpk.PluginError, match=r"codec 'flip' of cmpk-flip 1\.0 failed: TypeError: "):
        cmpk.pack({"runs": RUNS}, tmp_path / "flip.cmpk", recipe=FLIPS)


def test_a_codec_is_checked_on_attachments_as_well(install: Install, tmp_path: Path) -> None:
    install("cmpk-flip", with_first_line(FLIP, "decode_range", "out[:] = 0; return"))
    model = tmp_path / "model"
    model.mkdir()
    cmpk.numpy.save_file({"step": np.zeros(1, np.uint8)}, tmp_path / "step.cmpk")
    cmpk.unpack(tmp_path / "step.cmpk", model)
    (model / "tokenizer.txt").write_bytes(RUNS.tobytes())
    with pytest.raises(cmpk.PluginError, match=r"made of '.*' can't be read back"):
        cmpk.pack(model, tmp_path / "model.cmpk", recipe=FLIPS)
    assert not (tmp_path / "model.cmpk").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise KeyError('rule')", "^pass 'halve' of cmpk-nibbles 1.0 failed: KeyError: 'rule'$"),
        ("return 5", "^pass 'halve' made of 'runs' neither a tensor of its type and shape nor a split$"),
        ("part.data[:] = 0", "^pass 'halve' of cmpk-nibbles 1.0 failed: ValueError: .*read-only"),
        (
            "return Part(part.spec, part.data[:5])",
            "^pass 'halve' made of 'runs' neither a tensor of its type and shape nor a split$",
        ),
        (
            "return Part(TensorSpec('U8', (2000,)), part.data)",
            "^pass 'halve' made of 'runs' neither a tensor of its type and shape nor a split$",
        ),
        ("return branch('unheard-of', part.spec, Encoded({}, {}))", "no encoding is called 'unheard-of'"),
        (
            "return branch('nibbles', part.spec, Encoded({'x': 1.5}, {}))",
            "^what cmpk-nibbles 1.0 made of 'runs' can't be read back: ",
        ),
    ],
)
def test_a_pass_that_fails_is_named_and_leaves_no_file(
    line: str, message: str, install: Install, tmp_path: Path
) -> None:
    install("cmpk-nibbles", with_first_line(NIBBLES, "apply", line))
    with pytest.raises(cmpk.CmpkError, match=message):
        cmpk.pack({"runs": RUNS}, tmp_path / "halves.cmpk", recipe=HALVES)
    assert not (tmp_path / "halves.cmpk").exists()


def test_an_importer_that_fails_is_named(install: Install, tmp_path: Path) -> None:
    install(
        "cmpk-gguf",
        """
from cmpk.hookspecs import hookimpl
from cmpk.importers import Importer

class Gguf(Importer):
    id = "gguf"
    summary = "a GGUF file"

    def accepts(self, path):
        return path.suffix == ".gguf"

    def open(self, path):
        return {}["magic"]

@hookimpl
def cmpk_importers():
    return [Gguf()]
""",
    )
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        cmpk.PluginError, match=r"importer 'gguf' of cmpk-gguf 1\.0 failed: KeyError: 'magic'"
    ):
        cmpk.pack(tmp_path / "model.gguf", tmp_path / "model.cmpk")


def test_a_plugin_that_works_writes_the_same_file_with_any_number_of_threads(
    install: Install, tmp_path: Path
) -> None:
    install("cmpk-flip", FLIP)
    install("cmpk-nibbles", NIBBLES)
    both = Recipe("both", codecs=("raw", "flip"), rules=(Rule((PassUse("halve"),)),))
    files = []
    for jobs in (1, 2, 5):
        path = tmp_path / f"{jobs}.cmpk"
        cmpk.pack({str(i): RUNS + np.uint8(i) for i in range(9)}, path, recipe=both, jobs=jobs)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]
    with cmpk.open(tmp_path / "1.cmpk") as archive:
        archive.verify(deep=True)
        assert archive.manifest.providers == {"flip": "cmpk-flip 1.0", "nibbles": "cmpk-nibbles 1.0"}


def test_a_pass_of_a_plugin_may_change_values(install: Install, tmp_path: Path) -> None:
    install("cmpk-nibbles", with_first_line(NIBBLES, "apply", "return Part(part.spec, part.data & 15)"))
    cmpk.pack({"runs": RUNS}, tmp_path / "halves.cmpk", recipe=HALVES)
    with cmpk.open(tmp_path / "halves.cmpk") as archive:
        archive.verify(deep=True)
        assert archive.read("runs").tobytes() == (RUNS & 15).tobytes()


def test_a_split_of_a_plugin_may_change_values(install: Install, tmp_path: Path) -> None:
    install("cmpk-nibbles", NIBBLES.replace("part.data & 15", "part.data & 14"))
    cmpk.pack({"runs": RUNS}, tmp_path / "halves.cmpk", recipe=HALVES)
    with cmpk.open(tmp_path / "halves.cmpk") as archive:
        archive.verify(deep=True)
        assert archive.entry("runs").data.encoding == "nibbles"
        assert archive.read("runs").tobytes() == (RUNS & 254).tobytes()


def test_a_pass_that_says_it_is_lossless_is_held_to_it(install: Install, tmp_path: Path) -> None:
    code = NIBBLES.replace('id = "halve"', 'id = "halve"\n    is_lossless = True')
    install("cmpk-nibbles", code.replace("part.data & 15", "part.data & 14"))
    with pytest.raises(cmpk.PluginError, match=r"what cmpk-nibbles 1\.0 made of 'runs' can't be read back"):
        cmpk.pack({"runs": RUNS}, tmp_path / "halves.cmpk", recipe=HALVES)


def test_a_codec_is_held_to_its_bytes_whatever_passes_do(install: Install, tmp_path: Path) -> None:
    install("cmpk-flip", with_first_line(FLIP, "decode_range", "out[:] = 0; return"))
    install("cmpk-nibbles", NIBBLES.replace("part.data & 15", "part.data & 14"))
    both = Recipe("both", codecs=("raw", "flip"), rules=(Rule((PassUse("halve"),)),))
    with pytest.raises(cmpk.PluginError, match="does not give back the bytes that it was given"):
        cmpk.pack({"runs": RUNS}, tmp_path / "halves.cmpk", recipe=both)

"""A file whose plugin is missing, broken or not the only one: what is left of it, and what is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import cmpk
import cmpk.numpy
from cmpk.recipe import PassUse, Recipe, Rule
from cmpk.registry import registry
from tests.plugins.packages import FLIP, NIBBLES, Install

RUNS = np.repeat(np.arange(200, dtype=np.uint8), 30).reshape(60, 100)
STEP = np.array(0x0102030405060708, np.int64)


@pytest.fixture
def flip_file(install: Install, site: Path, tmp_path: Path) -> Path:
    """A file that needs the codec of a plugin that has since been uninstalled."""
    install("cmpk-flip", FLIP, version="1.5")
    path = tmp_path / "flip.cmpk"
    recipe = Recipe("flips", codecs=("raw", "flip"))
    cmpk.pack({"runs": RUNS, "step": STEP}, path, recipe=recipe)
    uninstall(site)
    return path


@pytest.fixture
def nibbles_file(install: Install, site: Path, tmp_path: Path) -> Path:
    """A file that needs the encoding of a plugin that has since been uninstalled."""
    install("cmpk-nibbles", NIBBLES)
    path = tmp_path / "nibbles.cmpk"
    recipe = Recipe("halves", codecs=("raw", "zstd"), rules=(Rule((PassUse("halve"),)),))
    cmpk.pack({"runs": RUNS, "step": STEP}, path, recipe=recipe)
    uninstall(site)
    return path


def uninstall(site: Path) -> None:
    for path in site.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    registry.cache_clear()


needs = pytest.mark.parametrize(
    ("file", "message"),
    [
        ("flip_file", r"needs codec 'flip'; it comes with cmpk-flip 1\.5: pip install cmpk-flip$"),
        ("nibbles_file", r"needs encoding 'nibbles'; .* cmpk-nibbles 1\.0: pip install cmpk-nibbles$"),
    ],
    ids=["codec", "encoding"],
)


@needs
def test_it_can_be_inspected(file: str, message: str, request: pytest.FixtureRequest) -> None:
    with cmpk.open(request.getfixturevalue(file)) as archive:
        assert archive.keys() == ["runs", "step"]
        assert archive.spec("runs") == ("U8", (60, 100))
        assert len(archive.manifest.providers) == 1


@needs
def test_its_streams_can_be_verified(file: str, message: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(file)
    with cmpk.open(path) as archive:
        archive.verify()
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with cmpk.open(path) as archive, pytest.raises(cmpk.CorruptStreamError, match="'runs'"):
        archive.verify()


@needs
def test_what_decodes_it_names_the_package_to_install(
    file: str, message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(file)
    with cmpk.open(path) as archive:
        for decode in (
            lambda: archive.verify(deep=True),
            lambda: archive.read("runs"),
            lambda: archive.read_range("runs", 5, 6),
            lambda: cmpk.numpy.load_file(path),
            lambda: cmpk.torch.load_file(path),
            lambda: cmpk.unpack(path, tmp_path / "unpacked"),
        ):
            with pytest.raises(cmpk.UnknownIdError, match=f"^tensor 'runs' {message}"):
                decode()
    assert not [path for path in (tmp_path / "unpacked").rglob("*") if path.is_file()]


@needs
def test_its_other_tensors_can_be_read(file: str, message: str, request: pytest.FixtureRequest) -> None:
    with cmpk.open(request.getfixturevalue(file)) as archive:
        assert archive.read("step").tobytes() == STEP.tobytes()


def test_it_reads_as_before_once_the_plugins_are_back(
    flip_file: Path, nibbles_file: Path, install: Install
) -> None:
    install("cmpk-flip", FLIP, version="1.5")
    install("cmpk-nibbles", NIBBLES)
    for path in (flip_file, nibbles_file):
        with cmpk.open(path) as archive:
            archive.verify(deep=True)
            assert archive.read("runs").tobytes() == RUNS.tobytes()
            assert archive.read_range("runs", 31, 3001).tobytes() == RUNS.tobytes()[31:3001]


def test_a_plugin_that_is_installed_but_broken_is_not_told_to_be_installed(
    flip_file: Path, install: Install
) -> None:
    install("cmpk-flip", "raise ImportError('needs libflip')", version="1.5")
    with cmpk.open(flip_file) as archive:
        archive.verify()
        with pytest.raises(cmpk.UnknownIdError) as caught:
            archive.read("runs")
    assert str(caught.value).endswith(
        "it comes with cmpk-flip 1.5, which is installed but broken: "
        "can't be imported: ImportError: needs libflip"
    )


def test_two_plugins_that_offer_the_codec_of_a_file_are_named(flip_file: Path, install: Install) -> None:
    install("cmpk-flip", FLIP, version="1.5")
    install("cmpk-flop", FLIP)
    with cmpk.open(flip_file) as archive:
        archive.verify()
        message = (
            "needs codec 'flip', which is offered by cmpk-flip 1.5 and cmpk-flop 1.0; uninstall all but one"
        )
        with pytest.raises(cmpk.PluginError, match=message):
            archive.read("runs")


@pytest.mark.parametrize(
    "provider", ["--index-url=http://x/ 1", "a;rm 1", "$(reboot) 1", "\x1b[2J 1", " 1", ""]
)
def test_a_file_has_no_say_in_what_is_typed_into_a_shell(provider: str) -> None:
    from cmpk.encodings import Leaf
    from cmpk.format import Node
    from cmpk.resolve import require_installed

    leaf = Leaf(Node(codec="flip"), 16, None, None)
    with pytest.raises(cmpk.UnknownIdError) as caught:
        require_installed(leaf, "tensor 'runs'", {"flip": provider})
    assert "pip install" not in str(caught.value)
    assert "\x1b" not in str(caught.value)

"""The registry with plugins of every sort installed: each fault is reported, and stays where it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cmpk.errors import PluginError, UnknownIdError
from cmpk.registry import Origin, builtin_registry, codec_of, find, registry
from tests.plugins.packages import FLIP, Install, write_package

HEAD = """
import click
from cmpk.codecs import Codec
from cmpk.encodings import Encoding
from cmpk.hookspecs import hookimpl

def codec(item_id, **attributes):
    methods = {"encode": lambda *_: None, "decode_range": lambda *_: None}
    return type("Made", (Codec,), {"id": item_id, "max_expansion": 9, **methods, **attributes})()
"""


def offering(items: str, kind: str = "codecs", options: str = "") -> str:
    return f"{HEAD}\n@hookimpl{options}\ndef cmpk_{kind}():\n    return {items}\n"


FAULTY = {
    "import": ("raise ImportError('needs libfast')", "can't be imported: ImportError: needs libfast"),
    "syntax": ("def (", "can't be imported: SyntaxError: "),
    "exit": ("import sys; sys.exit('bye')", "can't be imported: SystemExit: bye"),
    "raise": (offering("1 / 0"), "cmpk_codecs failed: ZeroDivisionError: division by zero"),
    "raise-late": (offering("(codec(1 / 0) for _ in 'a')"), "cmpk_codecs failed: ZeroDivisionError: "),
    "exit-late": (offering("__import__('sys').exit('bye')"), "cmpk_codecs failed: SystemExit: bye"),
    "property": (
        offering("[codec('x', fused=property(lambda _: 1 / 0))]"),
        "cmpk_codecs failed: ZeroDivisionError: ",
    ),
    "repr": (offering("[codec('X', __repr__=lambda _: 1 / 0)]"), "cmpk_codecs failed: ZeroDivisionError: "),
    "signature": (
        offering("[codec('early')]") + "\n@hookimpl\ndef cmpk_passes(recipe):\n    return []\n",
        "can't be registered: .*recipe",
    ),
    "typo": (offering("[]", "codec"), "there is no hook 'cmpk_codec'; there are cmpk_codecs, "),
    "nothing": ("VALUE = 1", "offers nothing: no function in it is marked with cmpk.hookspecs.hookimpl"),
    "none": (offering("None"), "cmpk_codecs failed: TypeError: "),
    "text": (offering("'lz'"), "cmpk_codecs offers '[lz]': it is not an instance of cmpk.codecs.base.Codec"),
    "class": (offering("[type(codec('x'))]"), "it is not an instance of cmpk.codecs.base.Codec"),
    "no-id": (offering("[codec(None)]"), "None is not an id: 1 to 64 characters of a-z, 0-9, _ and -"),
    "bad-id": (offering("[codec('Fast!')]"), "'Fast!' is not an id"),
    "long-id": (offering("[codec('x' * 65)]"), "' is not an id"),
    "line-id": (offering("[codec('x\\n')]"), "is not an id"),
    "no-bound": (offering("[codec('x', max_expansion=0)]"), "its max_expansion is 0, not a positive integer"),
    "fused": (offering("[codec('x', fused=True)]"), "only raw, bitpack, huffman, rans can be fused"),
    "encoding": (offering("[codec('x')]", "encodings"), "not an instance of cmpk.encodings.base.Encoding"),
    "plain": (
        offering(
            "[type('P', (Encoding,), {'id': 'plain', 'part_specs': 0, 'decode_range': 0})()]", "encodings"
        ),
        "'plain' is what a leaf is",
    ),
    "pass": (offering("[codec('x')]", "passes"), "not an instance of cmpk.passes.base.Pass"),
    "importer": (offering("[codec('x')]", "importers"), "not an instance of cmpk.importers.base.Importer"),
    "command": (offering("[print]", "commands"), "not an instance of click.core.Command"),
    "no-name": (offering("[click.Command(None)]", "commands"), "None is not an id"),
    "kernels": (
        offering("[1]", "kernels"),
        r"cmpk_kernels failed: TypeError: it gave \[1\], not backends by name",
    ),
    "backend": (offering("{'fast': 1}", "kernels"), "it lacks the operations byte_histogram, code_lengths, "),
    "usurper": (offering("[codec('huffman')]"), "codec 'huffman' belongs to cmpk itself"),
    "first": (offering("[codec('zstd')]", options="(trylast=True)"), "codec 'zstd' belongs to cmpk itself"),
    "reference": (
        offering("{'reference': __import__('cmpk.kernels.reference').kernels.reference}", "kernels"),
        "kernel backend 'reference' belongs to cmpk itself",
    ),
}
"""Code of plugins with one fault each, and how it is reported."""


def reasons(name: str) -> list[str]:
    return [problem.reason for problem in registry().problems if problem.origin == Origin(name, "1.0")]


def assert_all_else_works() -> None:
    for kind in ("codecs", "encodings", "passes", "importers", "kernels"):
        own = getattr(builtin_registry(), kind)
        everybody = getattr(registry(), kind)
        assert own.keys() <= everybody.keys()
        assert all(not everybody[item_id].plugin for item_id in own)
    assert registry().codecs["flip"].plugin == "cmpk-flip 1.0"


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_plugin_is_reported_by_name_and_takes_nothing_else_down(
    fault: str, install: Install
) -> None:
    code, message = FAULTY[fault]
    install("cmpk-flip", FLIP)
    install("cmpk-faulty", code)
    found = reasons("cmpk-faulty")
    assert found
    assert all(re.search(message, reason) for reason in found), found
    assert_all_else_works()


def test_plugins_with_all_faults_at_once_are_all_reported(install: Install) -> None:
    install("cmpk-flip", FLIP)
    for fault, (code, _) in FAULTY.items():
        install(f"cmpk-{fault}", code)
    reported = {problem.origin.name for problem in registry().problems}
    assert {f"cmpk-{fault}" for fault in FAULTY} <= reported
    assert_all_else_works()


def test_of_a_plugin_with_one_faulty_hook_signature_nothing_is_kept(install: Install) -> None:
    install("cmpk-faulty", FAULTY["signature"][0])
    assert find("codecs", "early") is None


def test_what_is_right_in_a_plugin_is_kept_beside_what_is_wrong(install: Install) -> None:
    install("cmpk-mixed", offering("[codec('BAD'), codec('good'), 7]"))
    assert registry().codecs["good"].plugin == "cmpk-mixed 1.0"
    assert len(reasons("cmpk-mixed")) == 2


def test_two_plugins_that_offer_one_id_are_both_named_and_neither_has_it(install: Install) -> None:
    install("cmpk-flip", FLIP)
    install("cmpk-flop", FLIP, version="2.0")
    with pytest.raises(PluginError, match=r"codec 'flip' is offered by cmpk-flip 1\.0 and cmpk-flop 2\.0"):
        registry().lookup("codecs", "flip")
    assert reasons("cmpk-flip") == ["codec 'flip' is also offered by cmpk-flop 2.0"]
    assert find("codecs", "flip") is None
    assert "huffman" in registry().codecs


def test_three_plugins_that_offer_one_id_are_all_named(install: Install) -> None:
    for name in ("cmpk-a", "cmpk-b", "cmpk-c"):
        install(name, FLIP)
    with pytest.raises(
        PluginError, match=r"cmpk-a 1\.0 and cmpk-b 1\.0 and cmpk-c 1\.0; uninstall all but one"
    ):
        registry().lookup("codecs", "flip")
    assert reasons("cmpk-b") == ["codec 'flip' is also offered by cmpk-a 1.0 and cmpk-c 1.0"]


@pytest.mark.parametrize(
    "code", ["{}", "from cmpk.hookspecs import hookimpl\n@hookimpl\ndef cmpk_codecs():\n    {}"]
)
def test_a_signal_that_comes_while_a_plugin_is_at_work_is_no_fault_of_it(code: str, install: Install) -> None:
    install("cmpk-slow", code.format("raise SystemExit(128 + 15)"))
    with pytest.raises(SystemExit) as caught:
        registry().lookup("codecs", "raw")
    assert caught.value.code == 143


def test_an_unknown_id_is_told_with_what_there_is_and_what_was_left_out(install: Install) -> None:
    install("cmpk-faulty", "raise ImportError('needs libfast')")
    with pytest.raises(UnknownIdError) as caught:
        registry().lookup("codecs", "fast")
    assert "no codec is called 'fast'; there are raw, zstd, bitpack, huffman, rans" in str(caught.value)
    assert "cmpk-faulty 1.0 was left out: can't be imported: ImportError: needs libfast" in str(caught.value)


def test_a_package_whose_entry_points_can_not_be_read_hides_no_others(install: Install) -> None:
    install("cmpk-flip", FLIP)
    install("another", "", entry_points="[cmpk]\nthis is no entry point\n")
    assert registry().codecs["flip"].plugin == "cmpk-flip 1.0"
    (problem,) = [problem for problem in registry().problems if problem.origin.name == "another"]
    assert problem.reason.startswith("its entry points can't be read: ")


def test_one_object_behind_two_entry_points_is_taken_once(install: Install) -> None:
    install("cmpk-flip", FLIP, entry_points="[cmpk]\none = cmpk_flip\ntwo = cmpk_flip\n")
    assert registry().codecs["flip"].plugin == "cmpk-flip 1.0"
    assert reasons("cmpk-flip") == ["its entry points name the same object twice"]


@pytest.mark.parametrize("value", ["None", "5", "'text'", "[]", "print", "__import__('numpy').zeros(2)"])
def test_an_entry_point_to_anything_at_all_takes_nothing_else_down(value: str, install: Install) -> None:
    install("cmpk-flip", FLIP)
    install("cmpk-any", f"plugin = {value}", entry_points="[cmpk]\nany = cmpk_any:plugin\n")
    assert reasons("cmpk-any")
    assert_all_else_works()


def test_the_first_of_two_installations_of_a_package_counts(
    install: Install, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "older"
    older.mkdir()
    write_package(older, "cmpk-flip", "raise ImportError('never imported')", version="0.9")
    monkeypatch.syspath_prepend(str(older))
    monkeypatch.syspath_prepend(str(site))
    install("cmpk-flip", FLIP)
    assert registry().codecs["flip"].plugin == "cmpk-flip 1.0"
    assert reasons("cmpk-flip") == []


def test_a_level_is_passed_to_the_codec_of_a_plugin(install: Install) -> None:
    level = "    def __init__(self, level=1):\n        self.level = 6 // (level - 2)\n\n    def encode("
    install("cmpk-flip", FLIP.replace("    def encode(", level))
    assert codec_of("flip:5").level == 2  # type: ignore[attr-defined]
    with pytest.raises(UnknownIdError, match="codec 'flip' has no level 'high'"):
        codec_of("flip:high")
    with pytest.raises(PluginError, match=r"codec 'flip' of cmpk-flip 1\.0 failed: ZeroDivisionError: "):
        codec_of("flip:2")


def test_a_codec_without_levels_takes_none(install: Install) -> None:
    install("cmpk-flip", FLIP)
    with pytest.raises(UnknownIdError, match="codec 'flip' has no level '5'"):
        codec_of("flip:5")

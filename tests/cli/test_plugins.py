from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import cmpk

Invoke = Callable[..., Result]
RunProcess = Callable[..., "subprocess.CompletedProcess[bytes]"]

GOOD_PLUGIN = """
import click
from cmpk.hookspecs import hookimpl

@click.command()
def hello():
    "Greet."
    click.echo("hello from a plugin")
    return 5

@click.command(name="pack")
def usurper():
    click.echo("usurped")

@click.command()
def crash():
    raise OSError(5, "the disk is on fire")

@hookimpl
def cmpk_commands():
    return [hello, usurper, crash]
"""


def install(folder: Path, name: str, version: str, code: str) -> None:
    """A package as pip would leave it, as far as entry points are concerned."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[cmpk]\n{name} = {module}\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed plugins: one with commands, one that can't be imported."""
    install(tmp_path, "cmpk-hello", "2.5", GOOD_PLUGIN)
    install(tmp_path, "cmpk-broken", "0.1", "raise RuntimeError('no \\x1b[31mluck')")
    return tmp_path


@pytest.fixture
def run_with_plugins(run_process: RunProcess, site: Path) -> RunProcess:
    root = Path(cmpk.__file__).resolve().parents[1]
    return lambda *args: run_process(*args, PYTHONPATH=f"{root}:{site}")


def test_everything_registered_is_listed_with_package_and_version(invoke: Invoke) -> None:
    document = json.loads(invoke("plugins", "--json").stdout)
    assert list(document) == [
        "codecs",
        "encodings",
        "passes",
        "importers",
        "kernels",
        "commands",
        "problems",
    ]
    listed = {(kind, item["id"]): item for kind in document if kind != "problems" for item in document[kind]}
    for key in (
        ("codecs", "huffman"),
        ("encodings", "alias"),
        ("passes", "split_floats"),
        ("importers", "torch"),
    ):
        assert listed[key] == {"id": key[1], "package": "cmpk", "version": cmpk.__version__}
    text = invoke("plugins").stdout
    for _, item_id in listed:
        assert f" {item_id} " in text


def test_a_command_of_a_plugin_is_a_command_of_cmpk(run_with_plugins: RunProcess) -> None:
    done = run_with_plugins("hello")
    # What a command returns is no exit code.
    assert (done.returncode, done.stdout) == (0, b"hello from a plugin\n")
    assert b"hello" in run_with_plugins("--help").stdout
    failed = run_with_plugins("crash")
    assert (failed.returncode, failed.stderr) == (1, b"cmpk: error: the disk is on fire\n")


def test_a_command_of_a_plugin_does_not_replace_one_of_cmpk(run_with_plugins: RunProcess) -> None:
    done = run_with_plugins("pack", "nothing-here", "-o", "x")
    assert b"usurped" not in done.stdout
    assert done.returncode == 1


def test_a_broken_plugin_is_reported_and_stops_nothing(
    run_with_plugins: RunProcess, archive_path: Path
) -> None:
    document = json.loads(run_with_plugins("plugins", "--json").stdout)
    assert {"id": "hello", "package": "cmpk-hello", "version": "2.5"} in document["commands"]
    problems = {item["package"]: item["reason"] for item in document["problems"]}
    assert "RuntimeError" in problems["cmpk-broken 0.1"]
    assert "'pack' belongs to cmpk itself" in problems["cmpk-hello 2.5"]
    text = run_with_plugins("plugins").stdout.decode()
    assert "cmpk-broken 0.1" in text
    assert text.replace("\n", "").isprintable()
    assert run_with_plugins("inspect", archive_path).returncode == 0

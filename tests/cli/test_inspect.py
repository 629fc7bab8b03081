from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import cmpk
import cmpk.numpy
from cmpk.cli.figures import codecs_of, describe
from cmpk.format import ContainerReader, Node

Invoke = Callable[..., Result]

ROOT = Path(__file__).resolve().parents[2]
HOSTILE_NAMES = ["\x1b]0;pwned\x07", "[bold red]x[/]", ":smile:", "a\nb", "\x9b31m", "\u202egnp", "[/broken"]


@pytest.fixture
def document(invoke: Invoke, archive_path: Path) -> Any:
    return json.loads(invoke("inspect", archive_path, "--json", "--streams").stdout)


@pytest.fixture
def hostile_path(tmp_path: Path) -> Path:
    path = tmp_path / "hostile.cmpk"
    tensors = {name: np.full(9, at, np.uint8) for at, name in enumerate(HOSTILE_NAMES)}
    tensors["duplicate"] = tensors[HOSTILE_NAMES[0]]
    cmpk.numpy.save_file(tensors, path, metadata={"\x1b[2J": "\x1b[31m[bold]"})
    return path


def test_inspecting_imports_neither_torch_nor_numpy_and_loads_no_plugin(archive_path: Path) -> None:
    code = (
        "import importlib.metadata, json, sys\n"
        "importlib.metadata.distributions = lambda **_: sys.exit('asked for plugins')\n"
        "from cmpk.cli.app import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "except SystemExit as error:\n    assert error.code == 0, error.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "inspect", str(archive_path), "--sort", "size"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert "cmpk.archive" in modules
    assert modules & {"torch", "triton", "numpy", "cmpk.packing", "cmpk.passes", "cmpk.importers"} == set()


@pytest.mark.parametrize("options", [(), ("head.weight",), ("--streams",), ("--json",), ("--sort", "ratio")])
def test_inspecting_reads_no_stream(
    invoke: Invoke, archive_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ContainerReader, "stream")
    assert invoke("inspect", archive_path, *options).exit_code == 0


def test_json_holds_the_manifest_as_it_is_in_the_file(document: Any, archive_path: Path) -> None:
    with cmpk.open(archive_path) as archive:
        assert document["manifest"] == json.loads(archive.manifest_json)
        assert document["archive"]["sha256"] == archive.sha256


def test_json_has_the_documented_shape(document: Any) -> None:
    assert list(document) == ["archive", "manifest", "streams"]
    assert list(document["archive"]) == [
        "path",
        "nbytes",
        "sha256",
        "n_tensors",
        "n_streams",
        "n_files",
        "total",
        "tensors",
        "literals",
        "overhead",
        "dtypes",
        "encodings",
        "codecs",
        "quality",
        "missing",
    ]
    tally = {"count", "numel", "nbytes", "stored_nbytes", "ratio", "bits_per_element"}
    for kind in ("dtypes", "encodings", "codecs"):
        assert all(set(item) == tally for item in document["archive"][kind].values())
    assert list(document["streams"][-1]) == [
        "file",
        "part",
        "offset",
        "codec",
        "stored_nbytes",
        "nbytes",
        "xxh3",
    ]


def test_the_bytes_of_the_file_are_accounted_for_to_the_last(
    document: Any, archive_path: Path, model_path: Path
) -> None:
    figures = document["archive"]
    payload = sum(stream["stored_nbytes"] for stream in document["streams"])
    assert figures["nbytes"] == archive_path.stat().st_size == payload + figures["overhead"]["nbytes"]
    assert payload == figures["tensors"]["stored_nbytes"] + figures["literals"]["stored_nbytes"]
    assert payload == sum(tally["stored_nbytes"] for tally in figures["codecs"].values())
    assert figures["total"]["stored_nbytes"] == figures["nbytes"]
    # The duplicate tensor is stored once, yet counted with its whole size.
    assert figures["total"]["nbytes"] == model_path.stat().st_size
    assert figures["tensors"]["nbytes"] == sum(tally["nbytes"] for tally in figures["dtypes"].values())
    assert figures["encodings"]["alias"]["stored_nbytes"] == 0


def test_streams_are_listed_in_file_order_with_their_digests(document: Any, archive_path: Path) -> None:
    with ContainerReader(archive_path) as reader:
        assert [stream["offset"] for stream in document["streams"]] == reader.offsets
        for stream in document["streams"]:
            node = Node(codec=stream["codec"], nbytes=stream["stored_nbytes"], xxh3=stream["xxh3"])
            assert len(reader.stream(stream["offset"], node)) == stream["stored_nbytes"]


def test_text_lists_every_stream_on_a_line_of_its_own(
    invoke: Invoke, document: Any, archive_path: Path
) -> None:
    text = invoke("inspect", archive_path, "--streams").stdout
    lines = [line.split() for line in text.splitlines()]
    for stream in document["streams"]:
        owner = stream.get("tensor", stream.get("file"))
        end = f"{owner} {stream['part']}".split()
        (line,) = [line for line in lines if line[:1] == [str(stream["offset"])] and line[-len(end) :] == end]
        assert line[1] == stream["codec"]
        assert stream["xxh3"] in line


def test_text_shows_totals_tables_and_a_row_for_each_tensor(invoke: Invoke, archive_path: Path) -> None:
    text = invoke("inspect", archive_path).stdout
    with cmpk.open(archive_path) as archive:
        assert archive.sha256 in text
        rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
        assert f"{archive.nbytes:,} bytes, " in text
        assert rows["BF16"][1] == "2"
        assert rows["alias"][1] == "1"
        for name in archive:
            assert rows[name][1] == archive.entry(name).dtype
    assert rows["recipe"] == ["recipe", "lossless"]
    assert rows["metadata"][1:] == ["format", "=", "pt"]
    assert rows["files"][-1] == "model.safetensors"
    assert rows["embedding.weight"][2] == "512×64"
    assert "output.weight" in rows
    assert "alias of embedding.weight" in text
    assert "narrow{float_split}" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("options", [(), ("head.weight",)])
def test_text_fits_the_terminal(
    invoke: Invoke, archive_path: Path, width: int, options: tuple[str, ...]
) -> None:
    text = invoke("inspect", archive_path, *options, COLUMNS=str(width)).stdout
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", ["1", "20", "80", "200"])
def test_text_is_shown_at_any_width_whatever_the_names_are(
    invoke: Invoke, tmp_path: Path, width: str
) -> None:
    names = ["", " ", "模型" * 30, "e\u0301" * 50, "x" * 300]
    cmpk.numpy.save_file(
        {name: np.full(9, at, np.uint8) for at, name in enumerate(names)}, tmp_path / "m.cmpk"
    )
    for options in ((), *((name,) for name in names)):
        done = invoke("inspect", tmp_path / "m.cmpk", *options, COLUMNS=width, FORCE_COLOR="1")
        assert done.exit_code == 0


def names_in_order(invoke: Invoke, path: Path, order: str) -> list[str]:
    lines = invoke("inspect", path, "--sort", order).stdout.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("tensor "))
    return [line.split()[0] for line in lines[start + 1 :]]


def test_tensors_are_sorted_largest_first_worst_ratio_first_or_by_name(
    invoke: Invoke, archive_path: Path
) -> None:
    with cmpk.open(archive_path) as archive:
        assert names_in_order(invoke, archive_path, "name") == sorted(archive)
        sizes = [archive.spec(name).nbytes for name in names_in_order(invoke, archive_path, "size")]
        assert sizes == sorted(sizes, reverse=True)
        ratios = []
        for name in names_in_order(invoke, archive_path, "ratio"):
            shown = json.loads(invoke("inspect", archive_path, name, "--json").stdout)["tensor"]["data"]
            ratios.append(shown["stored_nbytes"] / max(1, shown["nbytes"]))
        assert ratios == sorted(ratios, reverse=True)


def test_a_tensor_is_shown_with_its_whole_tree(invoke: Invoke, document: Any, archive_path: Path) -> None:
    text = invoke("inspect", archive_path, "head.weight").stdout
    with cmpk.open(archive_path) as archive:
        assert archive.entry("head.weight").blake3 in text
    own = [stream for stream in document["streams"] if stream.get("tensor") == "head.weight"]
    assert len(own) > 1
    for stream in own:
        (line,) = [line for line in text.splitlines() if stream["xxh3"] in line]
        assert f" {stream['part'].rpartition('.')[2]} " in line
        assert f"at {stream['offset']} " in line
    assert "dtype=F16" in text
    assert "mantissa_bits=" in text


def test_a_tensor_as_json_is_its_located_tree(invoke: Invoke, archive_path: Path) -> None:
    shown = json.loads(invoke("inspect", archive_path, "head.weight", "--json", "--streams").stdout)
    assert list(shown) == ["archive", "tensor", "streams"]
    assert shown["tensor"]["shape"] == [96, 64]
    node, leaves = shown["tensor"]["data"], []
    assert (node["encoding"], node["params"]) == ("narrow", {"dtype": "F16"})
    waiting = [node]
    while waiting:
        node = waiting.pop(0)
        waiting += node.get("parts", {}).values()
        leaves += [node] if "codec" in node else []
    assert [leaf["offset"] for leaf in leaves] == [stream["offset"] for stream in shown["streams"]]


def test_ranges_of_a_layers_input_are_shown_as_numbers(invoke: Invoke) -> None:
    path = ROOT / "spec" / "vectors" / "valid" / "input-ranges.cmpk"
    text = " ".join(invoke("inspect", path, "1").stdout.split())
    assert "input minmax -10 .. 10, percentile 0 .. 0, mse -1.401e-45 .. 1.401e-45" in text
    shown = json.loads(invoke("inspect", path, "1", "--json").stdout)
    assert list(shown["tensor"]["input"]) == ["minmax", "percentile", "mse"]
    assert shown["tensor"]["input"]["minmax"] == [-10, 10]


def test_a_duplicate_tensor_names_the_one_that_holds_its_bytes(invoke: Invoke, archive_path: Path) -> None:
    text = invoke("inspect", archive_path, "output.weight").stdout
    assert "equal to" in text
    with cmpk.open(archive_path) as archive:
        assert archive.entry("embedding.weight").blake3 in text


def test_a_name_that_is_not_there_is_an_error(invoke: Invoke, archive_path: Path) -> None:
    failed = invoke("inspect", archive_path, "no\x1b[31msuch")
    assert failed.exit_code == 1
    (line,) = failed.stderr.splitlines()
    assert line.isprintable()
    assert r"no\x1b[31msuch" in line


@pytest.mark.parametrize("options", [(), ("--streams",), ("--json",), ("--json", "--streams")])
@pytest.mark.parametrize("colored", [False, True])
def test_names_from_a_file_cannot_steer_the_terminal(
    invoke: Invoke, hostile_path: Path, options: tuple[str, ...], colored: bool
) -> None:
    environment = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "300"} if colored else {}
    text = invoke("inspect", hostile_path, *options, **environment).stdout
    for weight in ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colored else ():
        text = text.replace(weight, "")  # bold, dim and off are rich's own
    assert text.replace("\n", "").isprintable()
    for shown in ("[bold red]x[/]", ":smile:", "[/broken"):
        assert shown in text


def test_a_hostile_name_can_still_be_asked_for(invoke: Invoke, hostile_path: Path) -> None:
    for name in HOSTILE_NAMES:
        done = invoke("inspect", hostile_path, name)
        assert done.exit_code == 0
        assert done.stdout.replace("\n", "").isprintable()


def test_a_file_that_needs_plugins_is_shown_and_says_what_to_install(
    invoke: Invoke, needy_path: Path
) -> None:
    text = invoke("inspect", needy_path, "--streams").stdout
    assert "lz99 from cmpk-lz99 1.2, not installed" in text
    assert "wavelet from cmpk-waves 0.3, not installed" in text
    document = json.loads(invoke("inspect", needy_path, "--json", "--streams").stdout)
    assert document["archive"]["missing"] == [
        {"kind": "codec", "id": "lz99", "provider": "cmpk-lz99 1.2"},
        {"kind": "encoding", "id": "wavelet", "provider": "cmpk-waves 0.3"},
    ]
    sizes = {stream["tensor"]: stream["nbytes"] for stream in document["streams"]}
    assert sizes == {"a": 20, "b": None, "c": 2}
    for name in "abc":
        assert invoke("inspect", needy_path, name).exit_code == 0
        assert invoke("inspect", needy_path, name, "--json").exit_code == 0


def test_an_archive_without_tensors_is_shown(invoke: Invoke, tmp_path: Path) -> None:
    cmpk.numpy.save_file({}, tmp_path / "empty.cmpk")
    for options in ((), ("--streams",), ("--json",)):
        assert invoke("inspect", tmp_path / "empty.cmpk", *options).exit_code == 0


LEAF = Node(codec="raw", nbytes=5, xxh3="0" * 16)
SPLIT = Node(encoding="float_split", parts={"high": Node(codec="huffman", nbytes=3), "rest0": LEAF})


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (LEAF, "plain"),
        (SPLIT, "float_split"),
        (Node(encoding="narrow", parts={"values": SPLIT}), "narrow{float_split}"),
        (Node(encoding="alias", params={"target": "w", "tied": 1}), "alias of w"),
        (
            Node(encoding="row_groups", parts={"group": LEAF, "0": SPLIT, "1": SPLIT}),
            "row_groups[2]{float_split}",
        ),
        (
            Node(encoding="row_groups", parts={"group": LEAF, "0": SPLIT, "1": SPLIT, "2": LEAF}),
            "row_groups[3]{float_split ×2, plain}",
        ),
    ],
)
def test_a_tree_is_described_in_a_few_words(node: Node, text: str) -> None:
    assert describe(node) == text


def test_codecs_are_named_by_the_bytes_they_hold() -> None:
    assert codecs_of(SPLIT) == ["raw", "huffman"]

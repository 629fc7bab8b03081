"""How the process ends, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import cmpk
import cmpk.numpy
from cmpk.cli.app import COMMANDS, cli

Invoke = Callable[..., Result]
RunProcess = Callable[..., "subprocess.CompletedProcess[bytes]"]

ROOT = Path(__file__).resolve().parents[2]

# A job that runs in the background of a script inherits an ignored SIGINT; here it must not.
RUN_MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from cmpk.cli import main
main()
"""


@pytest.fixture(scope="module")
def slow_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of many tensors, and a recipe that takes its time with each."""
    folder = tmp_path_factory.mktemp("slow")
    rng = np.random.default_rng(3)
    tensors = {f"layer.{i}": rng.normal(0, 1, 100_000).astype(np.float32) for i in range(60)}
    cmpk.numpy.save_file(tensors, folder / "m.cmpk", recipe=_stored(folder))
    cmpk.unpack(folder / "m.cmpk", folder)
    recipe = folder / "slow.toml"
    recipe.write_text('codecs = ["zstd:22"]\n')
    return folder / "model.safetensors", recipe


def _stored(folder: Path) -> Path:
    recipe = folder / "stored.toml"
    recipe.write_text('codecs = ["raw"]\n')
    return recipe


@pytest.fixture
def packing(slow_source: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts to pack into a folder, and returns when the temporary file is there."""
    started = []

    def start(*options: str) -> subprocess.Popen[str]:
        source, recipe = slow_source
        command = [sys.executable, "-c", RUN_MAIN, "pack", str(source), "-o", str(tmp_path / "m.cmpk")]
        command += ["--recipe", str(recipe), *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, text=True)
        started.append(process)
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "jobs", "code", "said"),
    [
        (signal.SIGINT, "2", 130, "cmpk: interrupted"),
        (signal.SIGTERM, "1", 143, ""),
        (signal.SIGTERM, "2", 143, ""),
        (signal.SIGHUP, "1", 129, ""),
    ],
)
def test_a_signal_ends_packing_and_leaves_nothing_behind(
    packing: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    number: signal.Signals,
    jobs: str,
    code: int,
    said: str,
) -> None:
    process = packing("-j", jobs)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.strip() == said
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough_is_no_error(archive_path: Path) -> None:
    command = [sys.executable, "-m", "cmpk.cli", "inspect", str(archive_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_pipe_that_closes_while_an_archive_is_written_to_it_is_no_traceback(
    slow_source: tuple[Path, Path],
) -> None:
    command = [sys.executable, "-m", "cmpk.cli", "pack", str(slow_source[0]), "-o", "-", "-j", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"\x89CMPK"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("size", ["fits a buffer", "does not"])
@pytest.mark.parametrize("command", ["inspect", "pack"])
def test_a_full_disk_is_one_line(
    archive_path: Path, model_path: Path, tmp_path: Path, command: str, size: str
) -> None:
    if size == "fits a buffer":
        archive_path, model_path = tmp_path / "tiny.cmpk", tmp_path / "tiny.safetensors"
        cmpk.numpy.save_file({"a": np.arange(5)}, archive_path)
        cmpk.unpack(archive_path, model_path)
    args = {"inspect": (archive_path, "--json"), "pack": (model_path, "-o", "-")}[command]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cmpk.cli", command, *map(str, args)],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"cmpk: error: ")
    assert line.endswith(b"No space left on device")


def test_a_signal_ends_a_process_whose_reader_has_stalled(slow_source: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "cmpk.cli", "pack", str(slow_source[0]), "-o", "-", "-j", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"\x89CMPK"
        time.sleep(0.3)  # the pipe has filled up
        process.terminate()
        assert process.wait(20) == 143


def test_a_closed_stdout_is_no_traceback(archive_path: Path) -> None:
    command = f"exec {sys.executable} -m cmpk.cli inspect {archive_path} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, cwd=ROOT, check=False, timeout=60)
    assert done.stderr == b""


def test_what_a_terminal_cannot_show_is_escaped(run_process: RunProcess, archive_path: Path) -> None:
    done = run_process("inspect", archive_path, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0
    assert rb"\u2013" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("pack", "nothing-here", "-o", "x.cmpk"),
        ("pack", "m\udcff", "-o", "x.cmpk"),
        ("unpack", "nothing-here", "-o", "x"),
        ("inspect", "nothing-here"),
        ("inspect", "."),
        ("inspect", "x" * 5000),
        ("verify", "nothing-here"),
        ("verify", "nothing\x1b[31m\nhere"),
        ("pack", ".", "-o", "x.cmpk", "--recipe", "no-such-recipe"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_1(
    invoke: Invoke, tmp_path: Path, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = invoke(*args)
    assert failed.exit_code == 1
    assert failed.stdout == ""
    (line,) = failed.stderr.splitlines()
    assert line.startswith("cmpk: error: ")
    assert line.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("no-such-command",),
        ("pack",),
        ("pack", "m"),
        ("pack", "m", "-o", "x", "-j", "0"),
        ("inspect", "m", "--sort", "colour"),
        ("completion", "tcsh"),
        ("--no-such-option",),
    ],
)
def test_wrong_usage_is_exit_code_2(invoke: Invoke, args: tuple[str, ...]) -> None:
    wrong = invoke(*args)
    assert wrong.exit_code == 2
    assert wrong.stdout == ""
    assert "Usage: " in wrong.stderr


def test_a_bug_shows_its_traceback(
    invoke: Invoke, archive_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cmpk.cli.figures.figures_of", broken)
    with pytest.raises(ZeroDivisionError):
        invoke("inspect", archive_path)


def test_memory_that_does_not_suffice_is_one_line(
    invoke: Invoke, archive_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cmpk.cli.figures.figures_of", exhausted)
    failed = invoke("inspect", archive_path)
    assert (failed.exit_code, failed.stderr) == (1, "cmpk: error: not enough memory\n")


def test_the_version_comes_with_the_kernels_in_use(run_process: RunProcess) -> None:
    done = run_process("--version", CMPK_KERNELS="reference")
    assert done.returncode == 0
    first, second = done.stdout.decode().splitlines()
    assert first == f"cmpk {cmpk.__version__}"
    assert second.startswith("kernels: reference (NumPy)")
    failed = run_process("--version", CMPK_KERNELS="imaginary")
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"cmpk: error: ")


def test_every_command_and_option_explains_itself(invoke: Invoke) -> None:
    shown = invoke("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in shown
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, (name, parameter.name)  # type: ignore[attr-defined]
        assert invoke(name, "--help").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_calls_cmpk(run_process: RunProcess, shell: str) -> None:
    done = run_process("completion", shell)
    assert done.returncode == 0
    assert b"_CMPK_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("cmpk ver", {"verify"}),
        ("cmpk inspect --s", {"--sort", "--streams"}),
        ("cmpk inspect {archive} hea", {"head.weight"}),
        ("cmpk inspect nothing-here hea", set()),
        ("cmpk pack m --recipe lossless-", {"lossless-max"}),
    ],
)
def test_a_shell_completes_commands_options_and_tensor_names(
    archive_path: Path, words: str, completed: set[str]
) -> None:
    words = words.format(archive=archive_path)
    environment = os.environ | {
        "_CMPK_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    command = [sys.executable, "-c", "from cmpk.cli import main; main()"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines() if line} == completed


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_progress_is_shown_on_a_terminal_and_nowhere_else(model_path: Path, tmp_path: Path) -> None:
    import pty

    for index, options in enumerate([(), ("--json",)]):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "cmpk.cli", "pack", str(model_path), *options]
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / f"{index}.cmpk")],
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        )
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:
            pass  # how Linux says that the other end is closed
        os.close(ours)
        assert process.wait(60) == 0
        assert (b"packing" in shown) == (options == ())

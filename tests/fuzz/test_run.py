"""run.py reports what the targets find, and keeps the input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzz.run import Target, run_target

FUZZ = Path(__file__).parents[2] / "tools" / "fuzz"

# A target that reads a byte beyond the end of inputs of more than 100 bytes. No change makes an input
# more than 31 bytes longer: only who keeps what reached new code gets there.
CARELESS = """
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::unique_ptr<std::uint8_t[]> copy(new std::uint8_t[size]);
  volatile std::uint8_t* const bytes = copy.get();
  if (size > 25) bytes[25] = data[25];
  if (size > 50) bytes[50] = data[50];
  if (size > 75) bytes[75] = data[75];
  return size > 100 ? bytes[size] & 0 : 0;
}
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t,
                                               unsigned seed) {
  std::memset(data + size, 0, seed % 32);
  return size + seed % 32;
}
"""


def target_of(tmp_path: Path, program: str) -> Target:
    path = tmp_path / "program.py"
    path.write_text(f"import sys; input = sys.argv[sys.argv.index('--input') + 1]\n{program}")
    return Target("program", [sys.executable, str(path)], dict(os.environ))


def test_a_target_that_finds_nothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = target_of(tmp_path, "print('runs 1200 seconds 0.5 kept 7 steps 3')")
    assert not run_target(target, ["--seconds", "1"], tmp_path)
    assert capsys.readouterr().out.split() == ["program", "1,200", "runs", "2,400/s", "nothing", "found"]


def test_the_input_that_broke_a_target_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "open(input, 'wb').write((4).to_bytes(8, 'little') + b'evil' + bytes(9))\n"
        "sys.exit('==1==ERROR: AddressSanitizer: out of bounds')"
    )
    assert run_target(target_of(tmp_path, program), [], tmp_path)
    (found,) = (tmp_path / "findings").iterdir()
    assert found.read_bytes() == b"evil"
    out = capsys.readouterr().out
    assert str(found) in out
    assert "AddressSanitizer: out of bounds" in out


def test_a_target_that_is_killed_has_found_something(tmp_path: Path) -> None:
    assert run_target(target_of(tmp_path, "import os; os.kill(os.getpid(), 9)"), [], tmp_path)


@pytest.mark.slow
def test_the_driver_finds_a_read_beyond_the_end_and_leaves_the_input(tmp_path: Path) -> None:
    source, careless, program = (tmp_path / name for name in ("careless.cpp", "careless.o", "careless"))
    source.write_text(CARELESS)
    compiler = [os.environ.get("CXX", "g++"), "-std=c++17", "-fsanitize=address"]
    compile_only = ["-fsanitize-coverage=trace-pc", "-c", str(source), "-o", str(careless)]
    subprocess.run([*compiler, *compile_only], check=True)
    driver = ["-I", str(FUZZ / "kernels"), str(FUZZ / "kernels" / "driver.cpp")]
    subprocess.run([*compiler, *driver, str(careless), "-o", str(program)], check=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    assert run_target(Target("careless", [str(program)], environment), ["--runs", "10000"], tmp_path)
    (found,) = (tmp_path / "findings").iterdir()
    assert len(found.read_bytes()) > 100
    again = subprocess.run([program, found], capture_output=True, text=True, env=environment, check=False)
    assert "heap-buffer-overflow" in again.stderr


def test_what_fuzzing_found_is_run_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    program = f"open({str(seen)!r}, 'w').write(sys.argv[-1])\nprint('runs 1 seconds 1')"
    target = target_of(tmp_path, program)
    monkeypatch.setattr("tools.fuzz.run.CORPUS", tmp_path)
    found = tmp_path / "program" / "found once"
    found.parent.mkdir()
    found.touch()
    assert not run_target(target, [], tmp_path)
    assert seen.read_text() == str(found)

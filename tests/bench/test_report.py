"""The README shows what was recorded, and a bar is judged on the right side."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tools.bench.bars import Bar, bars
from tools.bench.report import BEGIN, END, markdown, with_section
from tools.bench.results import Results, Timing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recorded() -> Results:
    path = ROOT / "tools" / "bench" / "results.json"
    if not path.exists():
        pytest.skip(
            "no whole run has been recorded: python -m tools.bench --json tools/bench/results.json --readme"
        )
    return msgspec.json.decode(path.read_bytes(), type=Results)


def test_the_readme_shows_the_recorded_run(recorded: Results) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_section(readme, markdown(recorded)) == readme


def test_the_recorded_run_is_whole_and_of_the_native_kernels(recorded: Results) -> None:
    assert recorded.machine.kernels == "native"
    assert not recorded.quick
    assert recorded.cases
    assert recorded.fresh
    assert len(bars(recorded)) == 18


def test_a_limit_clears_its_bar_from_both_sides() -> None:
    assert Bar("ratio", 0.66, 0.66, at_most=True, unit="{}").cleared
    assert not Bar("ratio", 0.6601, 0.66, at_most=True, unit="{}").cleared
    assert Bar("gain", 1.5, 1.5, at_most=False, unit="{}").cleared
    assert not Bar("gain", 1.49, 1.5, at_most=False, unit="{}").cleared


def test_the_spread_is_half_the_interquartile_range_over_the_median() -> None:
    timing = Timing([1.0, 2.0, 3.0, 4.0, 100.0], [])
    assert timing.median == 3.0
    assert timing.spread == pytest.approx(1 / 3)


@pytest.mark.parametrize("readme", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        with_section(readme, "tables")

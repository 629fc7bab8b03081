"""The README shows what was recorded, and a bar is judged on the right side."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tools.bench.bars import Bar, bars
from tools.bench.report import BEGIN, END, markdown, with_section
from tools.bench.results import Case, Machine, Results, Timing, by_cpu_time

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tools" / "bench" / "results.json"
MACHINE = Machine("2026-01-01", "a processor", 2, 0.0, "Linux x86_64", "native", {"cmpk": "0.1.0"})


@pytest.fixture(scope="module")
def recorded() -> Results | None:
    return msgspec.json.decode(RECORDED.read_bytes(), type=Results) if RECORDED.exists() else None


def test_the_readme_shows_the_recorded_run_and_no_other_figures(recorded: Results | None) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition(BEGIN)[2].partition(END)[0].strip()
    assert section == (markdown(recorded) if recorded else "")


def test_the_recorded_run_is_a_whole_one_of_the_native_kernels(recorded: Results | None) -> None:
    if recorded is None:
        pytest.skip("no run is recorded yet: python -m tools.bench --record")
    assert recorded.machine.kernels == "native"
    assert recorded.is_whole
    assert not recorded.quick


def test_a_figure_at_its_limit_clears_the_bar_and_one_beyond_does_not() -> None:
    assert Bar("ratio", 0.66, 0.66, at_most=True, unit="{}").cleared
    assert not Bar("ratio", 0.6601, 0.66, at_most=True, unit="{}").cleared
    assert Bar("gain", 1.5, 1.5, at_most=False, unit="{}").cleared
    assert not Bar("gain", 1.49, 1.5, at_most=False, unit="{}").cleared


def test_the_spread_is_half_the_interquartile_range_over_the_median() -> None:
    timing = Timing([1.0, 2.0, 3.0, 4.0, 100.0], [])
    assert timing.median == 3.0
    assert timing.spread == pytest.approx(1 / 3)


def test_cmpk_is_compared_with_the_fastest_way_of_zipnn() -> None:
    assert {bar.what: bar.figure for bar in bars(Results(MACHINE, cases=all_cases()))}[
        "bf16 load, one thread, against zipnn's fastest"
    ] == pytest.approx(2.0)


def test_processor_time_is_shown_for_one_thread_only() -> None:
    shown = by_cpu_time(Results(MACHINE, cases=all_cases()))
    assert {case.threads for case in shown.cases} == {1}
    assert {case.load.median for case in shown.cases} == {0.5}


@pytest.mark.parametrize("readme", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        with_section(readme, "tables")


def all_cases() -> list[Case]:
    """Two threads as fast as one; cmpk loads in 1 s, zipnn in 2 or 3, everything packs in 1 s."""
    seconds = {
        "cmpk lossless": 1,
        "cmpk lossless-max": 1,
        "safetensors": 1,
        "zipnn, tensors": 3,
        "zipnn, whole": 2,
    }
    return [
        Case(tool, dtype, threads, 10**9, 10**9, 6 * 10**8, Timing([load], [0.5]), Timing([1], [0.5]))
        for tool, load in seconds.items()
        for dtype in ("bf16", "fp16", "fp32")
        for threads in (1, 2)
    ]

from __future__ import annotations

import json

import pytest

from cmpk.cli.text import (
    bytes_text,
    count_text,
    json_text,
    plain,
    rate_text,
    seconds_text,
    shape_text,
    things_text,
)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0  B"),
        (999, "999  B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_400, "999 kB"),
        (999_600, "1.00 MB"),
        (45_442_016, "45.4 MB"),
        (2**48, "281 TB"),
        (10**22, "10000 EB"),
        (None, "?"),
    ],
)
def test_sizes_have_three_digits_and_a_decimal_unit(nbytes: int | None, text: str) -> None:
    assert bytes_text(nbytes) == text


def test_units_of_right_aligned_sizes_stand_below_each_other() -> None:
    assert f"{bytes_text(17):>9}\n{bytes_text(1700):>9}" == "    17  B\n  1.70 kB"


def test_other_quantities_carry_their_units() -> None:
    assert count_text(22_713_728) == "22.7 M"
    assert count_text(512) == "512"
    assert rate_text(45_442_016, 0.25) == "182 MB/s"
    assert rate_text(5, 1.0) == "5 B/s"
    assert rate_text(5, 0.0) == "5.00 MB/s"
    assert seconds_text(2.669) == "2.67 s"
    assert seconds_text(200.9) == "3 min 20 s"
    assert shape_text((384, 1)) == "384×1"
    assert shape_text(()) == "scalar"
    assert (things_text(1, "file"), things_text(1024, "file")) == ("1 file", "1,024 files")


HOSTILE = "a\x1b[31m\x07\n\r\t\x7f\x9b2J\u202e\u200b\ud800é中[bold]"


def test_control_and_format_characters_are_escaped_and_letters_are_not() -> None:
    assert plain(HOSTILE) == r"a\x1b[31m\x07\n\r\t\x7f\x9b2J\u202e\u200b\ud800é中[bold]"
    assert plain("café / 模型") == "café / 模型"


def test_json_keeps_its_content_while_nothing_in_it_can_steer_a_terminal() -> None:
    content = {"name": HOSTILE.replace("\ud800", "\U000e0001"), "n": [1, 2]}
    text = json_text(json.dumps(content, ensure_ascii=False).encode())
    assert json.loads(text) == content
    assert text.replace("\n", "").isprintable()
    assert "é中" in text

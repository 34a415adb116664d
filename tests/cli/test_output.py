"""Tables, JSON and text that must not harm a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cli.output import table_lines, without_controls

HEADERS = ("NAME", "ID", "SIZE")
ROWS = [("smollm2:135m", "0123456789ab", "98 MB"), ("x:1", "fedcba987654", "1.3 GB")]


def test_columns_are_left_aligned_and_four_blanks_apart() -> None:
    assert table_lines(HEADERS, ROWS, None) == [
        "NAME            ID              SIZE",
        "smollm2:135m    0123456789ab    98 MB",
        "x:1             fedcba987654    1.3 GB",
    ]


def test_an_empty_table_has_its_headers() -> None:
    assert table_lines(HEADERS, [], None) == ["NAME    ID    SIZE"]


def test_a_narrower_terminal_gets_narrower_gaps_then_blocks() -> None:
    assert table_lines(HEADERS, ROWS, 36)[1] == "smollm2:135m  0123456789ab  98 MB"
    assert table_lines(HEADERS, ROWS[:1], 20) == ["smollm2:135m", "  ID    0123456789ab", "  SIZE  98 MB"]


@given(st.lists(st.tuples(*[st.text(max_size=30)] * 3), max_size=5), st.integers(1, 200))
def test_no_cell_is_lost_at_any_width(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = "\n".join(table_lines(HEADERS, rows, width))
    for row in rows:
        for cell in row:
            assert without_controls(cell).strip() in lines


def test_escape_sequences_lose_their_power() -> None:
    assert without_controls("a\x1b[31mb\x07\r\nc\td\x9b0m\x7f") == "a[31mb\nc\td0m"
    assert without_controls("plain ünï 🦙") == "plain ünï 🦙"

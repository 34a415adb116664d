"""Bars on terminals of every kind, lines elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from cli.errors import DaemonUnreachable
from cli.progress import BarView, LineView, follow
from tests.cli.fake_daemon import FakeDaemon, Json

LAYER: Json = {"status": "pulling 0123456789ab", "total": 98_000_000}


def records() -> Iterator[Json]:
    yield {"status": "pulling manifest"}
    for completed in range(0, 99_000_000, 1_000_000):
        yield {**LAYER, "completed": completed}
    yield {"status": "success"}


def test_lines_tell_the_beginning_and_the_end_of_each_thing(capsys: pytest.CaptureFixture[str]) -> None:
    follow(records(), LineView(seconds=1000))  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == [
        "pulling manifest",
        "pulling 0123456789ab: 0 B of 98 MB (0%)",
        "pulling 0123456789ab: 98 MB of 98 MB (100%)",
        "success",
    ]


def test_lines_tell_how_far_a_long_thing_has_come(capsys: pytest.CaptureFixture[str]) -> None:
    follow(records(), LineView(seconds=0))  # type: ignore[arg-type]
    assert "pulling 0123456789ab: 49 MB of 98 MB (50%)" in capsys.readouterr().err


def test_a_thing_of_no_size_and_a_missing_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DaemonUnreachable):
        follow([{"status": "pulling", "total": 0, "completed": 0}], LineView())
    assert capsys.readouterr().err == "pulling\n"


def test_a_thing_that_is_told_of_before_its_size_gets_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    steps: list[Json] = [{"status": "fetching"}, {"status": "fetching", "total": 10, "completed": 5}]
    follow([*steps, {"status": "success"}], BarView())  # type: ignore[list-item]
    assert "50%" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [20, 50, 70, 100])
def test_a_bar_fits_any_terminal_and_stays_one_line(
    daemon: FakeDaemon, environment: dict[str, str], columns: int
) -> None:
    from tests.cli.terminal import terminal

    daemon.routes["POST /api/pull"] = lambda _: records()
    with terminal(environment, "pull", "smol", columns=columns) as screen:
        assert screen.wait_for_end() == 0
        lines = [line for line in screen.text().splitlines() if line.strip()]
        assert len([line for line in lines if "pulling 01234" in line]) == 1
        assert lines[-1] == "success"
        assert len(lines) <= 4
        assert ("98.0/98.0 MB" in screen.text()) == (columns >= 60)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_needs_neither_colour_nor_unicode(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    from tests.cli.terminal import terminal

    daemon.routes["POST /api/pull"] = lambda _: records()
    plain = environment | {"NO_COLOR": "1", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    with terminal(plain, "pull", "smol") as screen:
        assert screen.wait_for_end() == 0
        assert "pulling 0123456789ab 100%" in screen.text()
        assert screen.raw.isascii()
        assert not re.search(r"\x1b\[(3|4|9)[0-9]", screen.raw)

"""Sizes, ages and durations read as the reference says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import formats

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 KB"), (1500, "1.5 KB"), (9960, "10.0 KB"), (98_123_456, "98 MB"),
        (1_300_000_000, "1.3 GB"), (22_900_000_000, "22 GB"), (3_000_000_000_000, "3 TB"), (5e15, "5000 TB"),
    ],
)  # fmt: skip
def test_sizes_have_one_decimal_only_below_ten(size: float, text: str) -> None:
    assert formats.format_size(size) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(milliseconds=400), "Less than a second ago"), (timedelta(seconds=1), "1 second ago"),
        (timedelta(seconds=59), "59 seconds ago"), (timedelta(seconds=60), "About a minute ago"),
        (timedelta(minutes=2), "2 minutes ago"), (timedelta(minutes=60), "About an hour ago"),
        (timedelta(hours=47), "47 hours ago"), (timedelta(days=2), "2 days ago"), (timedelta(days=13), "13 days ago"),
        (timedelta(days=14), "2 weeks ago"), (timedelta(days=60), "2 months ago"),
        (timedelta(days=729), "24 months ago"),
        (timedelta(days=730), "2 years ago"),
    ],
)  # fmt: skip
def test_ages_are_rough(ago: timedelta, text: str) -> None:
    assert formats.format_age(NOW - ago, NOW) == text


def test_an_expiry_is_in_the_future_over_or_for_ever() -> None:
    assert formats.format_expiry(NOW + timedelta(minutes=5), NOW) == "5 minutes from now"
    assert formats.format_expiry(NOW, NOW) == "Stopping..."
    assert formats.format_expiry(NOW + timedelta(days=9000), NOW) == "Forever"
    assert formats.format_expiry(None, NOW) == "Forever"


@pytest.mark.parametrize(
    ("size", "size_vram", "text"),
    [
        (0, 0, "Unknown"), (100, 0, "100% CPU"), (100, 100, "100% GPU"), (100, 52, "48%/52% CPU/GPU"),
        (100_000, 99_999, "1%/99% CPU/GPU"),
    ],
)  # fmt: skip
def test_the_processor_tells_where_a_model_is(size: int, size_vram: int, text: str) -> None:
    assert formats.format_processor(size, size_vram) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(1500, "1.5µs"), (85_200_000, "85.2ms"), (1_234_000_000, "1.234s"), (123_400_000_000, "2m3.4s"),
     (3_723_000_000_000, "1h2m3.0s")],
)  # fmt: skip
def test_durations_carry_their_unit(nanoseconds: int, text: str) -> None:
    assert formats.format_duration(nanoseconds) == text


def test_times_of_the_api_have_nanoseconds_and_a_zero() -> None:
    moment = formats.parse_time("2001-02-03T04:05:06.123456789+01:00")
    assert moment is not None
    assert moment.astimezone(UTC) == datetime(2001, 2, 3, 3, 5, 6, 123456, tzinfo=UTC)
    assert formats.parse_time("0001-01-01T00:00:00Z") is None
    assert formats.parse_time("soon") is None
    assert formats.format_age(None, NOW) == "Never"


@given(st.floats(min_value=0, max_value=1e18))
def test_every_size_is_short(size: float) -> None:
    assert len(formats.format_size(size)) <= 10

"""How a file's bytes are shared out: each byte to one connection, and none waits for a slow one."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.byte_ranges import ByteRanges
from registry.download_share import MIN_SEGMENT_BYTES, SEGMENT_BYTES, Share, Span, segment_bytes

MEGABYTE = 1 << 20


def test_the_file_is_given_out_from_its_front() -> None:
    share = Share([(0, 40 * MEGABYTE)], 16 * MEGABYTE)
    spans = [share.take(0.0) for _ in range(3)]
    assert [(span.position, span.end) for span in spans if span] == [
        (0, 16 * MEGABYTE),
        (16 * MEGABYTE, 32 * MEGABYTE),
        (32 * MEGABYTE, 40 * MEGABYTE),
    ]


def test_an_idle_connection_takes_half_of_what_a_slow_one_has_left() -> None:
    share = Share([(0, 16 * MEGABYTE)], 16 * MEGABYTE)
    slow = share.take(0.0)
    assert slow is not None
    slow.receive(MEGABYTE, 1.0)
    helper = share.take(1.0)
    assert helper is not None
    assert (slow.end, helper.position, helper.end) == (helper.position, MEGABYTE + 15 * MEGABYTE // 2, 16 * MEGABYTE)


def test_what_is_nearly_there_is_left_alone() -> None:
    share = Share([(0, 16 * MEGABYTE)], 16 * MEGABYTE)
    fast = share.take(0.0)
    assert fast is not None
    fast.receive(15 * MEGABYTE, 1.0)
    assert share.take(1.0) is None


def test_all_that_a_silent_connection_lacks_is_taken_from_it() -> None:
    share = Share([(0, 100_000)], MEGABYTE)
    silent = share.take(0.0)
    assert silent is not None
    silent.receive(1000, 0.1)
    assert share.take(1.0) is None
    helper = share.take(10.0)
    assert helper is not None
    assert (silent.end, helper.position, helper.end) == (1000, 1000, 100_000)
    assert share.take(10.0) is None


def test_a_small_file_is_spread_and_a_large_one_asked_for_in_bounded_parts() -> None:
    assert segment_bytes(1000, 8) == MIN_SEGMENT_BYTES
    assert segment_bytes(64 * MEGABYTE, 8) == 4 * MEGABYTE
    assert segment_bytes(1 << 40, 8) == SEGMENT_BYTES


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), min_size=1, max_size=6),
    seed=st.integers(0, 10_000),
    segment=st.integers(1, 64),
)
def test_every_byte_comes_once_whatever_connections_do(gaps: list[tuple[int, int]], seed: int, segment: int) -> None:
    """Eight connections that receive, break off and go silent at random, in units of 256 kB."""
    chance, unit, now = random.Random(seed), 256 << 10, 0.0
    wanted = ByteRanges(*((start * unit, (start + count) * unit) for start, count in gaps))
    share = Share(list(wanted), segment * unit)
    received = ByteRanges()
    active: list[Span] = []
    for _ in range(20_000):
        if share.is_over:
            break
        now += chance.random()
        if len(active) < 8 and (span := share.take(now)) is not None:
            active.append(span)
        if not active:
            continue
        span = chance.choice(active)
        count = min(span.left, chance.choice([0, unit // 3, unit, 5 * unit]))
        if count > 0:
            assert received.missing(span.position, span.position + count) == [(span.position, span.position + count)]
            received.add(span.position, span.position + count)
            span.receive(count, now)
        if span.left <= 0 or chance.random() < 0.1:
            active.remove(span)
            share.give_back(span)
    assert share.is_over
    assert received == wanted

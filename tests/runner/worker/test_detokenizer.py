"""Bytes to text, whole characters, stop strings."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runner.worker.detokenizer import TextStream

_texts = st.text(alphabet="ab<|>é漢😀", max_size=40)
_stops = st.lists(st.text(alphabet="ab<|>é", min_size=1, max_size=5), max_size=3).map(tuple)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(_texts, _stops, st.lists(st.integers(0, 400), max_size=30))
def test_however_the_bytes_are_cut_the_text_is_the_same(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    stream = TextStream(stops)
    sent = ""
    for piece in _cut(text.encode(), cuts):
        if stream.stopped_by is None:
            sent += stream.push(piece)
    sent += stream.finish()
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if stream.stopped_by is None:
        assert sent == text
        assert not found
    else:
        assert text.startswith(sent + stream.stopped_by)
        assert not any(stop in sent for stop in stops)


@given(_texts, st.lists(st.integers(0, 400), max_size=30))
def test_no_piece_holds_half_a_character(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    for piece in _cut(text.encode(), cuts):
        assert "\ufffd" not in stream.push(piece)


def test_a_stop_string_across_pieces_is_cut_and_told() -> None:
    stream = TextStream(("<end>",))
    assert [stream.push(piece) for piece in (b"hello <", b"en", b"d> more")] == ["hello ", "", ""]
    assert stream.stopped_by == "<end>"
    assert stream.finish() == ""


def test_what_might_have_become_a_stop_string_is_sent_at_the_end() -> None:
    stream = TextStream(("<end>",))
    assert stream.push(b"a <en") == "a "
    assert stream.finish() == "<en"


def test_what_turns_out_not_to_be_a_stop_string_is_sent_at_once() -> None:
    stream = TextStream(("aab",))
    assert stream.push(b"aa") == ""
    assert stream.push(b"a") == "a"
    assert stream.push(b"c") == "aac"


def test_a_character_cut_by_the_end_becomes_a_replacement_character() -> None:
    stream = TextStream()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "\ufffd"

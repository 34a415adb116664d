"""Bodies are read one way or refused with their place."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.strict_json import MAX_DEPTH, decode
from runner.errors import InvalidEncoding, InvalidJson, RequestError, TooDeep

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(VALUES, st.booleans())
def test_what_any_writer_wrote_is_read_back(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert decode(text.encode("utf-8")) == value


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_by_name(body: bytes) -> None:
    try:
        decode(body)
    except RequestError:
        return
    json.loads(body)


@given(st.text(alphabet='[]{}":,\\u0dc8 1', max_size=80))
def test_nearly_json_is_read_or_refused_by_name(text: str) -> None:
    try:
        value = decode(text.encode())
    except RequestError:
        return
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b'{"a": 1,}', 1, 9),
        (b'{\n  "a" 1}', 2, 7),
        (b"", 1, 1),
        (b'{"a": "\n"}', 1, 8),
        (b"{} {}", 1, 4),
        (b"[01]", 1, 3),
    ],
)
def test_malformed_json_is_told_with_line_and_column(body: bytes, line: int, column: int) -> None:
    with pytest.raises(InvalidJson) as caught:
        decode(body)
    assert (caught.value.facts["line"], caught.value.facts["column"]) == (line, column)


@pytest.mark.parametrize(
    "body",
    [
        b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"[-1e999]",
        b"9" * 5000, b"18446744073709551616", b"-9223372036854775809",
        b'{"a":1,"a":1}', b'[{"b":{"\\u0061":1,"a":2}}]',
    ],
)  # fmt: skip
def test_what_other_readers_let_pass_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        decode(body)


def test_the_key_that_stands_twice_is_named() -> None:
    with pytest.raises(InvalidJson, match='"model"'):
        decode(b'{"model":"a","messages":[],"model":"b"}')


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf{}", b'"\xff"', b'"\xed\xa0\x80"', '"ä"'.encode("latin-1"), '{"a":1}'.encode("utf-16")]
)
def test_anything_but_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        decode(body)


def test_the_first_wrong_byte_is_told() -> None:
    with pytest.raises(InvalidEncoding) as caught:
        decode(b'{"a":"\xff"}')
    assert caught.value.facts["offset"] == 6


@pytest.mark.parametrize("body", [rb'"\ud800"', rb'["a",{"b":"x\udc00"}]', rb'{"\uDBFF":1}', rb'"\udc00\ud800"'])
def test_half_a_surrogate_pair_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        decode(body)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert decode(rb'"\ud83d\ude00 \\ud800"') == "\N{GRINNING FACE} \\ud800"


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_taken_up_to_the_limit_and_no_further(pair: tuple[bytes, bytes]) -> None:
    opening, closing = pair
    decode(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    with pytest.raises(TooDeep):
        decode(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))


def test_brackets_in_texts_are_no_nesting() -> None:
    body = json.dumps(["[" * 1000, '"[[[' * 100, "\\[" * 100, "\\\\" + "[" * 100])
    assert decode(body.encode()) == json.loads(body)


def test_neighbours_are_no_nesting() -> None:
    assert decode(b"[" + b",".join([b"[]"] * 100_000) + b"]") == [[]] * 100_000


def test_a_million_open_brackets_are_refused_at_once() -> None:
    began = time.thread_time()
    for body in (b"[" * 1_000_000, b'{"a":' * 1_000_000, b'["\\"", ' * 1_000_000):
        with pytest.raises(TooDeep):
            decode(body)
    assert time.thread_time() - began < 5

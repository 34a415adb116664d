"""Forms are read strictly, whatever is sent."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.form_data import MAX_PARTS, boundary_of, decode_form
from runner.errors import InvalidEncoding, InvalidRequest, RequestError, Unsupported
from tests.fakes import FakeModel, FakeStore, FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon

BOUNDARY = b"xyz"
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters='"\\[]'), min_size=1, max_size=20
)


def part(name: str, data: bytes = b"", *more: str) -> bytes:
    head = "\r\n".join((f'Content-Disposition: form-data; name="{name}"', *more))
    return b"--xyz\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join((*parts, b"--xyz--\r\n"))


def read(body: bytes) -> dict[str, object]:
    return decode_form(body, BOUNDARY, ("file",))


def test_texts_files_arrays_and_objects_are_told_apart() -> None:
    body = form(
        part("file", b"\xff\r\n--xy\x00", 'Content-Type: audio/wav"'),
        part("model", "höre".encode()),
        part("include[]", b"a"),
        part("include[]", b"b"),
        part("chunking_strategy[type]", b"server_vad"),
    )
    assert read(body) == {
        "file": b"\xff\r\n--xy\x00",
        "model": "höre",
        "include": ["a", "b"],
        "chunking_strategy": {"type": "server_vad"},
    }


@given(st.dictionaries(NAMES, st.text(st.characters(codec="utf-8")), max_size=8))
def test_what_an_http_client_writes_is_what_is_read(fields: dict[str, str]) -> None:
    files: Any = [(name, (None, text)) for name, text in fields.items()]
    request = httpx.Request("POST", "http://localhost/", files=files or {"only": (None, "")})
    found = decode_form(request.read(), boundary_of(request.headers["content-type"]), ())
    assert found == (fields or {"only": ""})


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: form(part("a", data))[:-7] + data))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read(body)
    except RequestError as error:
        assert error.message


@pytest.mark.parametrize("end", range(1, len(form(part("a", b"b"))) - 2))
def test_a_form_that_ends_early_is_refused(end: int) -> None:
    with pytest.raises(InvalidRequest):
        read(form(part("a", b"b"))[:end])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (form(part("a", b"0"), part("a", b"0")), InvalidRequest),
        (form(part("a", b""), part("a[]", b"")), InvalidRequest),
        (form(part("a[]", b""), part("a", b"")), InvalidRequest),
        (form(part("a[k]", b""), part("a[]", b"")), InvalidRequest),
        (form(part("a[k]", b""), part("a[k]", b"")), InvalidRequest),
        (form(part("a[", b"")), InvalidRequest),
        (form(part("[]", b"")), InvalidRequest),
        (form(part("", b"")), InvalidRequest),
        (form(b"--xyz\r\nContent-Type: text/plain\r\n\r\nno name\r\n"), InvalidRequest),
        (form(part("a", b"\xff")), InvalidEncoding),
        (form(part("a", b"YQ==", "Content-Transfer-Encoding: base64")), Unsupported),
        (form(part("a", b"", *[f"X-{n}: y" for n in range(50)])), InvalidRequest),
        (form(part("a", b"", "X: " + "y" * 10_000)), InvalidRequest),
        (form(*(part(str(n)) for n in range(MAX_PARTS + 1))), InvalidRequest),
    ],
)
def test_what_is_doubled_nameless_or_too_much_is_refused(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(body)


@pytest.mark.parametrize("filler", [b"\r\n--xy", b"--xyz\r\n", b"--xyz\r\na:b\r\n\r\n\r\n", b"\r", b"\0"])
def test_large_broken_forms_are_read_or_refused_at_once(filler: bytes) -> None:
    body = b"--xyz\r\n" + filler * ((16 << 20) // len(filler))
    started = time.thread_time()
    with pytest.raises(InvalidRequest):
        read(body)
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=a",
        f"multipart/form-data; boundary={'b' * 71}",
    ],
)
def test_only_forms_with_a_boundary_are_taken(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="takes a form"):
        boundary_of(kind)


async def test_errors_of_forms_come_in_the_shape_of_the_dialect_and_hold_the_same_limits() -> None:
    store = FakeStore(FakeModel(can=("completion", "audio")))
    async with FakeDaemon(FakeSupervisor(answer("Hello")), store).client() as client:

        async def ask(content: bytes, kind: str = "multipart/form-data; boundary=xyz") -> tuple[int, Any]:
            response = await client.post("/v1/audio/transcriptions", content=content, headers={"content-type": kind})
            return response.status_code, response.json()

        file = part("file", b"RIFF")
        assert (await ask(form(file, part("model", b"m"))))[1]["text"] == "Hello"
        for content, code, field in (
            (form(file), "invalid_request", "model"),
            (form(file, part("model", b"m"), part("modle", b"m")), "invalid_request", "modle"),
            (form(file, part("model", b"m"), part("temperature", b"nan")), "invalid_request", "temperature"),
            (form(file, part("model", b"m"), part("stream", b"yes")), "invalid_request", "stream"),
            (form(part("file"), part("model", b"m")), "invalid_request", "file"),
            (form(file), "invalid_request", "model"),
        ):
            status, told = await ask(content)
            assert (status, told["error"]["code"], told["error"]["param"]) == (400, code, field), told
        assert (await ask(b"{}", "application/json"))[0] == 400
        status, told = await ask(form(part("file", bytes((32 << 20) + 1)), part("model", b"m")))
        assert (status, told["error"]["code"], told["error"]["param"]) == (413, "body_too_large", "file")
        assert (await ask(bytes((64 << 20) + 1)))[0] == 413

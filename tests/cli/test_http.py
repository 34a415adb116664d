"""Replies are read however they are cut, and nonsense is told from a broken connection."""

from __future__ import annotations

import contextlib
import io
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.http import Connection, ConnectionBroken, HttpError, Reply


def reply(*parts: bytes, has_body: bool = True) -> Reply:
    return Reply(io.BufferedReader(io.BytesIO(b"".join(parts))), has_body=has_body)


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%X;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\nT: 1\r\n\r\n"


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_a_chunked_body_is_the_sum_of_its_chunks(pieces: list[bytes]) -> None:
    assert reply(HEAD, chunked(pieces)).read() == b"".join(pieces)


@given(st.lists(st.text(max_size=20).filter(lambda line: "\n" not in line), max_size=6), st.data())
def test_lines_come_whole_however_they_are_cut(lines: list[str], data: st.DataObject) -> None:
    body = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert list(reply(HEAD, chunked(pieces)).lines()) == [line.encode() for line in lines]


def test_a_body_ends_with_its_length_or_with_the_connection() -> None:
    assert reply(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef").read() == b"abc"
    assert reply(b"HTTP/1.0 200 OK\r\n\r\nabcdef").read() == b"abcdef"
    assert reply(b"HTTP/1.1 204 No Content\r\n\r\nabc").read() == b""
    assert reply(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", has_body=False).read() == b""


def test_an_interim_reply_is_passed_over() -> None:
    assert reply(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").status == 201


@pytest.mark.parametrize(
    "content",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nA: b", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", HEAD,
     HEAD + b"5\r\nab", HEAD + b"2\r\nab\r\n"],
)  # fmt: skip
def test_a_reply_that_ends_too_early_is_a_broken_connection(content: bytes) -> None:
    with pytest.raises(ConnectionBroken):
        reply(content).read()


@pytest.mark.parametrize(
    "content",
    [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
     HEAD + b"zz\r\n", HEAD + b"-2\r\nab\r\n", HEAD + b"1\r\nab\r\n", b"HTTP/1.1 200 " + b"x" * 70000,
     b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
)  # fmt: skip
def test_nonsense_is_an_error_of_its_own(content: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        reply(content).read()
    assert not isinstance(caught.value, ConnectionBroken)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(content: bytes) -> None:
    for head in (b"", HEAD):
        with contextlib.suppress(HttpError):
            reply(head, content).read()


def test_a_refusal_during_an_upload_is_still_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(1000)
                accepted.sendall(b"HTTP/1.1 507 No Room\r\nContent-Length: 2\r\n\r\nno")
                accepted.shutdown(socket.SHUT_WR)
                while accepted.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        host, port = server.getsockname()
        with Connection("http", host, port, 5) as connection:
            connection.send("POST", "/", {"Content-Length": "4000000"})
            connection.send_more(b"x" * 100_000 for _ in range(40))
            answer = connection.reply("POST")
            assert (answer.status, answer.read()) == (507, b"no")
            answer.close()
        thread.join(5)

"""The API as calls: records as they come, errors with their codes, connections that break."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import pytest

from cli.address import DaemonAddress
from cli.client import DaemonClient, NotListening
from cli.errors import ApiError, DaemonUnreachable
from tests.cli.fake_daemon import TIMEOUT, FakeDaemon, Json, Reply, answer, refusal
from tests.kept_port import kept_port


@pytest.fixture
def client(daemon: FakeDaemon) -> DaemonClient:
    return DaemonClient(DaemonAddress("http", "127.0.0.1", daemon.port))


def test_records_arrive_before_the_stream_ends(daemon: FakeDaemon, client: DaemonClient) -> None:
    go_on = threading.Event()

    def records() -> Iterator[Json]:
        yield {"response": "one"}
        assert go_on.wait(TIMEOUT)
        yield {"response": "two", "done": True}

    daemon.routes["POST /api/generate"] = lambda _: records()
    with client.generate({"model": "m"}) as stream:
        arriving = iter(stream)
        assert next(arriving)["response"] == "one"
        go_on.set()
        assert [record["response"] for record in arriving] == ["two"]


def test_closing_a_stream_disconnects(daemon: FakeDaemon, client: DaemonClient) -> None:
    def endless() -> Iterator[Json]:
        while True:
            yield {"response": "x" * 1000}

    daemon.routes["POST /api/generate"] = lambda _: endless()
    with client.generate({"model": "m"}) as stream:
        next(iter(stream))
    assert daemon.disconnected.wait(TIMEOUT)


def test_an_error_has_code_facts_and_request_id(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.routes["POST /api/show"] = lambda _: refusal(400, "context_length_exceeded", "too long", prompt_tokens=9)
    with pytest.raises(ApiError) as caught:
        client.show("m")
    assert (caught.value.code, caught.value.sentence, caught.value.request_id) == (
        "context_length_exceeded", "too long", "r-1",
    )  # fmt: skip
    assert caught.value.facts == {"prompt_tokens": 9}


def test_an_error_in_a_stream_is_raised_after_what_came_before(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.routes["POST /api/pull"] = lambda _: [{"status": "pulling"}, {"error": "no disk", "code": "disk_full"}]
    with client.pull("m") as stream:
        arriving = iter(stream)
        assert next(arriving)["status"] == "pulling"
        with pytest.raises(ApiError, match="no disk") as caught:
            next(arriving)
    assert caught.value.exit_code == 28


def test_a_stream_that_is_cut_off_is_an_error(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.routes["POST /api/chat"] = lambda _: Reply(answer("a", chat=True)[:1], cut=True)
    with pytest.raises(DaemonUnreachable, match="broke off"), client.chat({"model": "m"}, []) as stream:
        list(stream)


def test_nobody_listening_is_told_apart_from_a_stranger(client: DaemonClient) -> None:
    with kept_port() as port, pytest.raises(NotListening):
        DaemonClient(DaemonAddress("http", "127.0.0.1", port)).version()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_greet_as_ssh, args=(server,))
        thread.start()
        with pytest.raises(DaemonUnreachable, match="does not speak HTTP"):
            DaemonClient(DaemonAddress("http", "127.0.0.1", server.getsockname()[1])).version()
        thread.join(TIMEOUT)


def test_who_accepts_and_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.client.PROBE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DaemonUnreachable, match="did not answer"):
        DaemonClient(DaemonAddress("http", "127.0.0.1", silent.getsockname()[1])).version()


def test_an_unknown_host_is_said_to_be_unknown() -> None:
    with pytest.raises(DaemonUnreachable, match="is not known"):
        DaemonClient(DaemonAddress("http", "no-such-host.invalid", 1)).version()


def test_a_blob_is_sent_in_pieces_and_told(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.routes["POST /api/blobs/*"] = lambda _: Reply(status=201)
    content = bytes(range(256)) * 8192
    sent: list[int] = []
    client.upload_blob("sha256:00", len(content), io.BytesIO(content + b"grown since"), sent.append)
    assert daemon.asked("POST /api/blobs/sha256:00") == [content]
    assert sum(sent) == len(content)
    assert len(sent) > 1


def test_a_blob_is_there_or_not(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply(status=404)
    assert not client.has_blob("sha256:00")
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
    assert client.has_blob("sha256:00")
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply(status=400)
    with pytest.raises(ApiError):
        client.has_blob("nonsense")


def _greet_as_ssh(server: socket.socket) -> None:
    accepted, _ = server.accept()
    with accepted:
        accepted.recv(1000)
        accepted.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")

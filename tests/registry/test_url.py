"""Models behind plain addresses: what their servers tell, well or badly."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from registry.errors import ModelNotFound, RegistryError, RegistryForbidden, SourceError, Unauthorized
from registry.pull_options import PullOptions
from registry.registries import Registries, RegistryEntry
from registry.sources.model_url import ModelUrl
from registry.sources.resolved import HttpFile
from registry.sources.url import UrlSource


class Server:
    """Answers HEAD with the status and headers that a path is given in `answers`."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Mapping[str, str]]] = {}
        self.asked: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def url(self, path: str) -> ModelUrl:
        return ModelUrl(f"http://{self.host}{path}")

    @property
    def listed(self) -> Registries:
        return Registries({self.host: RegistryEntry(self.host, insecure=True)})

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                owner.asked.append((self.command, self.path))
                status, headers = owner.answers.get(self.path.partition("?")[0], (404, {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as server:
        yield server


def source(server: Server) -> UrlSource:
    return UrlSource(lambda: server.listed, PullOptions())


async def test_a_file_is_resolved_to_its_address_and_size(server: Server) -> None:
    server.answers["/m.gguf"] = (200, {"Content-Length": "1234"})
    model = await source(server).resolve(server.url("/m.gguf?key=x"), lambda notice: None)
    [file] = model.files
    [place] = file.places
    assert isinstance(place, HttpFile) and place.url == server.url("/m.gguf?key=x").url
    assert (file.size, file.digest, file.title, place.authorizer) == (1234, None, "m.gguf", None)


async def test_all_shards_are_asked_for_and_come_in_order(server: Server) -> None:
    for number in (1, 2, 3):
        server.answers[f"/m-0000{number}-of-00003.gguf"] = (200, {"Content-Length": str(number)})
    notices: list[str] = []
    model = await source(server).resolve(server.url("/m-00002-of-00003.gguf"), notices.append)
    assert [file.size for file in model.files] == [1, 2, 3]
    assert notices == ["m-00002-of-00003.gguf is one of 3 shards, which are fetched together"]


async def test_a_missing_shard_ends_it_before_it_begins(server: Server) -> None:
    server.answers["/m-00001-of-00002.gguf"] = (200, {"Content-Length": "1"})
    with pytest.raises(ModelNotFound, match="m-00002-of-00002"):
        await source(server).resolve(server.url("/m-00001-of-00002.gguf"), lambda notice: None)


async def test_redirects_are_followed_by_the_same_rules(server: Server) -> None:
    server.answers["/m.gguf"] = (302, {"Location": "/there/m.gguf"})
    server.answers["/there/m.gguf"] = (200, {"Content-Length": "5"})
    [facts] = await source(server).facts(server.url("/m.gguf"))
    assert (facts.url, facts.size) == (server.url("/m.gguf").url, 5)
    server.answers["/m.gguf"] = (302, {"Location": "http://127.0.0.2:9/m.gguf"})
    with pytest.raises(RegistryForbidden):
        await source(server).facts(server.url("/m.gguf"))


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (404, {}, ModelNotFound),
        (410, {}, ModelNotFound),
        (401, {}, Unauthorized),
        (403, {}, Unauthorized),
        (418, {}, SourceError),
        (200, {"Content-Type": "text/html; charset=utf-8"}, SourceError),
        (302, {"Location": "ftp://example.com/m.gguf"}, SourceError),
        (302, {"Location": "/m.gguf"}, SourceError),
    ],
)
async def test_what_is_no_file_is_told(
    server: Server, status: int, headers: Mapping[str, str], error: type[RegistryError]
) -> None:
    server.answers["/m.gguf"] = (status, headers)
    with pytest.raises(error) as caught:
        await source(server).facts(server.url("/m.gguf?key=secret"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("headers", "size"),
    [({}, None), ({"Content-Length": "x"}, None), ({"Content-Length": "9" * 30}, None), ({"Content-Length": "7"}, 7)],
)
async def test_a_size_that_makes_no_sense_counts_as_unknown(
    server: Server, headers: Mapping[str, str], size: int | None
) -> None:
    server.answers["/m.gguf"] = (200, headers)
    try:
        [facts] = await source(server).facts(server.url("/m.gguf"))
    except SourceError:
        assert size is None  # the client itself may find it odd
    else:
        assert facts.size == size


async def test_a_server_that_knows_no_head_is_taken_at_its_word_later(server: Server) -> None:
    server.answers["/m.gguf"] = (405, {})
    [facts] = await source(server).facts(server.url("/m.gguf"))
    assert (facts.size, facts.modified_at) == (None, None)


async def test_the_time_of_the_last_change_is_read(server: Server) -> None:
    server.answers["/m.gguf"] = (200, {"Last-Modified": "Fri, 01 May 2026 10:00:00 GMT"})
    server.answers["/n.gguf"] = (200, {"Last-Modified": "lately"})
    [facts] = await source(server).facts(server.url("/m.gguf"))
    assert facts.modified_at == datetime(2026, 5, 1, 10, tzinfo=UTC)
    [facts] = await source(server).facts(server.url("/n.gguf"))
    assert facts.modified_at is None


async def test_plain_http_needs_a_listed_host(server: Server) -> None:
    with pytest.raises(RegistryForbidden, match="puna registry add"):
        await UrlSource(Registries, PullOptions()).facts(server.url("/m.gguf"))
    assert server.asked == []

"""Every recorded request is answered with exactly the recorded bytes."""

from __future__ import annotations

import pytest

from tests.fakes import FakeModel, FakeStore, FakeSupervisor
from tests.runner.api.serving import FakeDaemon
from tests.wire.recording import Recording, masked, recordings

RECORDINGS = recordings()


def test_both_dialects_are_recorded_streamed_and_not() -> None:
    names = {f"{recording.path.parent.name}/{recording.path.stem}" for recording in RECORDINGS}
    assert {f"{dialect}/chat{streamed}" for dialect in ("ollama", "openai") for streamed in ("", "_streamed")} <= names


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda one: f"{one.path.parent.name}/{one.path.stem}")
async def test_the_answer_is_what_was_recorded(recording: Recording) -> None:
    daemon = FakeDaemon(FakeSupervisor(recording.events), FakeStore(FakeModel()))
    async with daemon.client() as client:
        answer = await client.request(
            recording.method, recording.target, headers=recording.request_headers, content=recording.body
        )
    told = {name: answer.headers.get(name) for name in recording.headers}
    assert (answer.status_code, told) == (recording.status, recording.headers)
    assert masked(answer.content).decode() == recording.answer.decode()
    assert not daemon.supervisor.open_leases

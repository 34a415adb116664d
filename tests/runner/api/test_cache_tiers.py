"""Where a prompt's cached tokens came from is told in every dialect, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.chat.types import CachedTokens, ChatEvent, Finished, FinishReason, TextDelta, Usage
from tests.fakes import FakeSupervisor
from tests.runner.api.serving import FakeDaemon
from tests.runner.api.test_standing import BODIES

TIERS = {"live": 4, "memory": 2, "disk": 1}


def script(cache: CachedTokens) -> list[ChatEvent]:
    usage = Usage(9, cache.total, 2, queued_ns=1, prompt_ns=1, decode_ns=1, cache=cache)
    return [TextDelta("Hi"), Finished(FinishReason.STOP, usage, seed=1)]


async def records(path: str, cache: CachedTokens, **more: Any) -> list[dict[str, Any]]:
    async with FakeDaemon(FakeSupervisor(script(cache))).client() as client:
        answered = await client.post(path, json={"model": "m", **BODIES[path], **more})
    assert answered.status_code == 200, answered.text
    lines = [
        line.removeprefix("data: ") for line in answered.text.splitlines() if line and not line.startswith("event")
    ]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("streams", [False, True])
async def test_a_reply_tells_the_tiers_beside_the_count(path: str, streams: bool) -> None:
    more = {"stream_options": {"include_usage": True}} if streams and path.endswith("completions") else {}
    for cache, told in ((CachedTokens(4, 2, 1), [TIERS]), (CachedTokens(), [])):
        found = await records(path, cache, stream=streams, **more)
        # An event of a response has the whole response in it.
        whole = [inner if isinstance(inner := record.get("response"), dict) else record for record in found]
        assert [one["cache"] for one in whole if "cache" in one] == told


async def test_each_prompt_counts_once() -> None:
    async with FakeDaemon(FakeSupervisor(script(CachedTokens(4, 2, 1)))).client() as client:
        body = {"model": "m", "prompt": ["Hello", "Bye"], "n": 3}
        several = (await client.post("/v1/completions", json=body)).json()
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "n": 3}
        one = (await client.post("/v1/chat/completions", json=body)).json()
    assert several["cache"] == {"live": 8, "memory": 4, "disk": 2}
    assert one["cache"] == TIERS
    assert sum(one["cache"].values()) == one["usage"]["prompt_tokens_details"]["cached_tokens"]

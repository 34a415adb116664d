"""API keys and a real model: each is let in for what it is for, and none sees what another has had computed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon, running_daemon
from tests.end_to_end.test_prefixes import SYSTEM

EVERYWHERE = "0.0.0.0:0"
MOST = 150
"""Tokens that the prompts below have in common at least."""


def create_key(home: Path, name: str, scopes: str) -> str:
    puna = [sys.executable, "-P", "-m", "cli", "key", "create", name, "--scope", scopes, "--json"]
    done = subprocess.run(
        puna, env={"PUNA_HOME": str(home)}, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    key: str = json.loads(done.stdout)["key"]
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def body(question: str, **options: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return {
        "model": MODEL,
        "messages": messages,
        "stream": False,
        "options": {"temperature": 0, "num_predict": 8, **options},
    }


def ask(daemon: Daemon, question: str, key: str | None, **options: Any) -> dict[str, Any]:
    headers = {} if key is None else bearer(key)
    answered = daemon.client.post("/api/chat", json=body(question, **options), headers=headers)
    assert answered.status_code == 200, answered.text
    told: dict[str, Any] = answered.json()
    return told


def cached(told: dict[str, Any]) -> int:
    count: int = told.get("cached_tokens", 0)
    return count


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


async def test_no_key_sees_the_prefixes_of_another(home: Path, models: Path) -> None:
    anna, ben = (create_key(home, name, "infer") for name in ("anna", "ben"))
    with running_daemon(home, models, EVERYWHERE) as daemon:
        # One that has ended, its cells or what was saved of them.
        assert cached(ask(daemon, "Who counted?", anna)) == 0
        assert cached(ask(daemon, "Who climbed?", anna)) > MOST
        assert cached(ask(daemon, "Who counted?", ben)) == 0
        assert cached(ask(daemon, "Who climbed?", ben)) > MOST

        # Some that run at the same time.
        carl, dora = (create_key(home, name, "infer") for name in ("carl", "dora"))
        async with httpx.AsyncClient(base_url=daemon.url, timeout=TIMEOUT) as client:
            asked = [(carl, "Who?"), (dora, "Who?"), (carl, "Why?"), (dora, "Why?")]
            together = await asyncio.gather(
                *(client.post("/api/chat", json=body(text), headers=bearer(key)) for key, text in asked)
            )
        told = [answered.json() for answered in together]
        assert [answered.status_code for answered in together] == [200] * 4
        for key in (carl, dora):
            counts = sorted(cached(one) for (whose, _), one in zip(asked, told, strict=True) if whose == key)
            assert counts[0] == 0 and counts[1] > MOST, told
        for first, second in ((told[0], told[1]), (told[2], told[3])):
            assert first["prompt_eval_count"] == second["prompt_eval_count"]

    # What only the disk knows, by a key, by another one, and by nobody.
    erik = create_key(home, "erik", "infer")
    with running_daemon(home, models, EVERYWHERE) as daemon:
        mine, stranger = ask(daemon, "Where?", anna), ask(daemon, "Where?", erik)
        assert mine["cache"]["disk"] > MOST
        assert cached(stranger) == 0
        assert mine["prompt_eval_count"] == stranger["prompt_eval_count"]
    with running_daemon(home, models) as daemon:
        # First of all, since later it is known how quickly prompts are computed, and disks may be slower.
        assert ask(daemon, "When?", ben)["cache"]["disk"] > MOST
        assert cached(ask(daemon, "When?", None)) == 0
        assert cached(ask(daemon, "Whose?", None)) > MOST


async def test_every_client_comes_in_with_its_key_and_the_command_line_too(home: Path, models: Path) -> None:
    key, reader = create_key(home, "app", "infer"), create_key(home, "reader", "read")
    turn: list[Any] = [{"role": "user", "content": "Say hello."}]
    with running_daemon(home, models, EVERYWHERE) as daemon:
        with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT) as first:
            assert first.chat.completions.create(model=MODEL, messages=turn, max_tokens=4).choices[0].message.content
            with pytest.raises(openai.PermissionDeniedError, match='"read"'):
                first.models.list()
        with anthropic.Anthropic(base_url=daemon.url, api_key=key, max_retries=0, timeout=TIMEOUT) as second:
            assert second.messages.create(model=MODEL, messages=turn, max_tokens=4).usage.output_tokens
        with ollama.Client(host=daemon.url, headers=bearer(reader), timeout=TIMEOUT) as third:
            assert MODEL in [model.model for model in third.list().models]
            with pytest.raises(ollama.ResponseError, match='"infer"'):
                third.chat(MODEL, turn)

        def puna(*arguments: str, own_key: str = "") -> subprocess.CompletedProcess[str]:
            environment = {**daemon.environment, "PUNA_API_KEY": own_key}
            return subprocess.run(
                [sys.executable, "-P", "-m", "cli", *arguments],
                env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
            )  # fmt: skip

        assert puna("list").returncode == 77
        assert MODEL in puna("list", own_key=reader).stdout
        assert puna("rm", MODEL, own_key=reader).returncode == 77
        assert MODEL in puna("list", own_key=reader).stdout

"""The rows that are about Puna alone: it is measured beside itself."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark import prompts
from benchmark.client import Json, ask
from benchmark.rows import Figures, throughput
from benchmark.servers import Server, puna, running
from benchmark.sizes import Sizes

_SETTLE_SECONDS = 0.3


def drafting(server: Server, sizes: Sizes) -> Figures:
    """A text that repeats what it read, greedily, without guesses and with them."""
    prompt = prompts.repetition(sizes.passages)
    generate(server, prompt, 1)  # what both find in the cache
    plain_text, plain = generate(server, prompt, sizes.repeat_tokens, draft_num_predict=0)
    text, speed = generate(server, prompt, sizes.repeat_tokens)
    return {"drafting_off": plain, "drafting_on": speed, "drafting_same": float(text == plain_text)}


def python_share(server: Server, sizes: Sizes) -> Figures:
    """The part of the engine's steps that is spent outside the inference library, in percent."""
    time.sleep(_SETTLE_SECONDS)
    before = _steps(server)
    asyncio.run(throughput(server, sizes.share_rows, sizes.share_tokens))
    time.sleep(_SETTLE_SECONDS)  # the worker tells its totals when it turns idle
    after = _steps(server)
    step, native = (after[key] - before[key] for key in ("step_seconds", "native_seconds"))
    return {"python_share": 100 * (1 - native / step)}


def resume(home: Path, models: Path, model: str, sizes: Sizes) -> Figures:
    """A conversation that goes on after the daemon was started anew, and one as long that nobody knows."""
    known = prompts.conversation(sizes.history_words, sizes.history_turns, 4)
    unknown = prompts.conversation(sizes.history_words, sizes.history_turns, 4)
    with running(puna(home, models, model)) as server:
        answer = asyncio.run(ask(server, known))
    with running(puna(home, models, model)) as server:
        asyncio.run(ask(server, prompts.story(0, 2)))  # the model is loaded
        resumed = asyncio.run(ask(server, prompts.next_turn(known, answer.text))).first_token
        cold = asyncio.run(ask(server, unknown)).first_token
    return {"resume_cold": cold * 1000, "resume_known": resumed * 1000}


OWN_ROWS: Mapping[str, Callable[[Server, Sizes], Figures]] = {
    "drafting": drafting,
    "python": python_share,
}
"""By what `--only` calls them."""


def generate(server: Server, prompt: str, tokens: int, **options: object) -> tuple[str, float]:
    """A plain continuation, greedily: its text, and its tokens a second once the first is there."""
    body: Json = {
        "model": server.model,
        "prompt": prompt,
        "raw": True,
        "options": {"num_predict": tokens, "temperature": 0, **options},
    }
    request = urllib.request.Request(
        f"{server.url}/api/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    pieces, moments, count = [], [], 0
    with urllib.request.urlopen(request, timeout=600) as lines:
        for line in lines:
            record: dict[str, Any] = json.loads(line)
            if record.get("response"):
                pieces.append(record["response"])
                moments.append(time.perf_counter())
            count = record.get("eval_count", count)
    seconds = moments[-1] - moments[0] if len(moments) > 1 else 0.0
    return "".join(pieces), (count - 1) / seconds if seconds else 0.0


def _steps(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.url}/api/ps", timeout=10) as answer:
        [model] = json.load(answer)["models"]
    return dict(model["steps"])

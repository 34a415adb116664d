"""What an answer was made with, for whoever wants to have it made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from runner.calls import Call
from runner.chat.types import Finished
from runner.choices import Choices
from runner.generate import Generation


def receipt_field(call: Call, source: Generation | Choices, ends: Iterable[Finished]) -> dict[str, object]:
    """The field of an answer that has the receipt, if one was asked for."""
    return {"receipt": receipt(source, *ends)} if call.receipt else {}


def receipt(source: Generation | Choices, *ends: Finished) -> dict[str, object]:
    """The model, the engine, every option after defaults, and the seed; with several answers the seeds in order."""
    request = source.request
    limits = request.limits
    options = dataclasses.asdict(request.sampling)
    del options["seed"]
    options |= {
        "num_ctx": min(limits.num_ctx or source.loaded.context_length, source.loaded.context_length),
        "num_predict": limits.num_predict,
        "num_keep": limits.num_keep,
        "stop": list(request.stop),
        "truncate": limits.truncate,
        "shift": limits.shift,
        "deterministic": request.deterministic,
    }
    return {
        "model": source.model.name.short,
        "model_digest": f"sha256:{source.model.digest}",
        "weights_digest": str(source.model.model_digest),
        "engine": source.loaded.engine,
        "placement": source.loaded.placement,
        "options": options,
        **_seeds([end.seed for end in ends]),
    }


def _seeds(seeds: Sequence[int]) -> dict[str, object]:
    return {"seed": seeds[0]} if len(seeds) == 1 else {"seed": seeds[0], "seeds": seeds}

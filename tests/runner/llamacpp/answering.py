"""Sequences decoded token by token, on a model that would say anything: random weights, a token for each byte."""

from __future__ import annotations

import json

from runner.engine import Chunk, SamplerPlan
from runner.llamacpp.constraint import ConstraintState
from runner.llamacpp.engine import LlamaEngine
from runner.sampling import Constraint, ConstraintKind, SamplingParams

PROMPT = list(b"say something")
OPEN = SamplingParams(temperature=1, top_k=0, top_p=1)
TOWARDS_THE_END = tuple((byte, 4.0) for byte in b'"]},:0')
"""Without it such a model would hardly ever close a string."""


class Answerer:
    """One sequence that is decoded token by token."""

    def __init__(self, engine: LlamaEngine, sequence_id: int, plan: SamplerPlan) -> None:
        self.engine = engine
        self.sequence_id = sequence_id
        self.sampler = engine.create_sampler(plan, PROMPT)
        self.tokens = list(PROMPT)
        self.computed = 0
        self.text = b""
        self.has_ended = False

    def chunk(self) -> Chunk:
        return Chunk(self.sequence_id, self.computed, self.tokens[self.computed :], self.sampler)

    def take(self, token: int) -> None:
        assert self.sampler.failure is None, self.sampler.failure
        self.computed = len(self.tokens)
        self.tokens.append(token)
        if self.engine.ends_generation(token):
            self.has_ended = True
        else:
            self.text += self.engine.token_bytes(token)
            self.has_ended = self.sampler.is_complete

    def run(self, count: int) -> None:
        for _ in range(count):
            if self.has_ended:
                break
            [token] = self.engine.step([self.chunk()])
            self.take(token)
        self.close()

    def close(self) -> None:
        self.sampler.close()
        self.engine.remove(self.sequence_id)


def constraint(kind: ConstraintKind, source: object, after: str | None = None) -> Constraint:
    text = source if isinstance(source, str) else json.dumps(source)
    return Constraint(kind, text, "format", after)


def compiled_state(engine: LlamaEngine, wanted: Constraint) -> ConstraintState:
    return engine.compile_constraint(wanted).begin()


def answer(
    engine: LlamaEngine,
    wanted: Constraint,
    *,
    seed: int = 1,
    count: int = 400,
    params: SamplingParams = OPEN,
) -> tuple[str, bool]:
    """The text, and whether it ended by itself."""
    plan = SamplerPlan(params, seed, TOWARDS_THE_END, engine.compile_constraint(wanted))
    answerer = Answerer(engine, 0, plan)
    answerer.run(count)
    return answerer.text.decode("utf-8", "strict" if answerer.has_ended else "replace"), answerer.has_ended

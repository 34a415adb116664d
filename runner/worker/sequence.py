"""One request's tokens and status inside the worker."""

from __future__ import annotations

from runner.chat.types import ChatRequest, Finished, FinishReason, Truncation, Usage
from runner.engine import Sampler
from runner.worker.answer import Answer


class Sequence:
    """A prompt and the answer that grows behind it.

    `tokens` holds both. The first `computed` of them have KV cells; the others are `pending`. A
    token that was sampled is appended and stays pending until the next step computes it, so prefill
    and decode differ only in how many tokens are pending. Owned by the loop.
    """

    __slots__ = (
        "answer",
        "computed",
        "faults",
        "first_step_ns",
        "first_token_ns",
        "last_token_ns",
        "paused",
        "prompt_tokens",
        "received_ns",
        "request",
        "request_id",
        "sampler",
        "seed",
        "sequence_id",
        "tokens",
        "truncated",
        "window",
    )

    def __init__(
        self,
        request_id: str,
        request: ChatRequest,
        tokens: list[int],
        *,
        window: int,
        seed: int,
        received_ns: int,
        truncated: Truncation | None = None,
    ) -> None:
        self.request_id = request_id
        self.request = request
        self.tokens = tokens
        self.prompt_tokens = len(tokens)
        self.window = window
        self.seed = seed
        self.truncated = truncated
        self.answer = Answer(request, window)
        self.computed = 0
        self.faults = 0
        """Steps with this sequence that failed in the engine."""
        self.paused = False
        self.sequence_id: int | None = None
        self.sampler: Sampler | None = None
        self.received_ns = received_ns
        self.first_step_ns = 0
        self.first_token_ns = 0
        self.last_token_ns = 0

    @property
    def pending(self) -> int:
        """Tokens without a KV cell."""
        return len(self.tokens) - self.computed

    @property
    def is_decoding(self) -> bool:
        """Whether only the token sampled last is pending."""
        return self.answer.generated > 0 and len(self.tokens) - self.computed == 1

    @property
    def is_window_full(self) -> bool:
        return len(self.tokens) >= self.window

    def forget(self, keep: int, discard: int) -> None:
        """Drop `discard` tokens after the first `keep`; their cells are the engine's to shift."""
        original = len(self.tokens)
        del self.tokens[keep : keep + discard]
        self.computed -= discard
        first = self.truncated.original if self.truncated else original
        self.truncated = Truncation(original=first, kept=len(self.tokens), strategy="shift")

    def finished(self, reason: FinishReason) -> Finished:
        """The event that ends this request; call after the last token was counted."""
        started = self.first_step_ns or self.received_ns
        first_token = self.first_token_ns or started
        return Finished(
            reason=reason,
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                cached_tokens=0,
                completion_tokens=self.answer.generated,
                queued_ns=started - self.received_ns,
                prompt_ns=first_token - started,
                decode_ns=max(self.last_token_ns - first_token, 0),
            ),
            seed=self.seed,
            stop_string=self.answer.stop_string,
            truncated=self.truncated,
            context=tuple(self.tokens) if self.request.wants_context else None,
        )

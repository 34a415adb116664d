"""One request's tokens and status inside the worker."""

from __future__ import annotations

from runner.chat.types import CachedTokens, ChatRequest, Finished, FinishReason, Priority, Truncation, Usage
from runner.engine import CompiledConstraint, PromptScoring, Sampler, SamplerPlan
from runner.worker.answer import Answer
from runner.worker.drafting import Drafter
from runner.worker.echo import Echo
from runner.worker.guesser import Guesser
from runner.worker.media import MediaSpan
from runner.worker.output import OutputPlan
from runner.worker.rescoring import Rescoring
from runner.worker.stand_ins import whole_length

BACKGROUND_DELAY_NS = 10_000_000_000
"""How long background work lets interactive requests go first."""


class DraftTally:
    """Tokens that were computed ahead, and those of them that were right."""

    __slots__ = ("accepted", "drafted")

    def __init__(self) -> None:
        self.drafted = self.accepted = 0


class Sequence:
    """A prompt and the answer that grows behind it.

    `tokens` holds both. The first `computed` of them have KV cells; the others are `pending`. A
    token that was sampled is appended and stays pending until the next step computes it, so prefill
    and decode differ only in how many tokens are pending. Owned by the loop.
    """

    __slots__ = (
        "answer",
        "awaits_other",
        "cached",
        "computed",
        "drafter",
        "drafts",
        "faults",
        "first_step_ns",
        "first_token_ns",
        "found",
        "guessed",
        "guesser",
        "is_background",
        "is_shifted",
        "kept_length",
        "kept_version",
        "last_token_ns",
        "media",
        "paused",
        "plan",
        "prompt_tokens",
        "read_until_ns",
        "received_ns",
        "request",
        "request_id",
        "rescoring",
        "retaken",
        "sampler",
        "sequence_id",
        "shared_with",
        "stops",
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
        constraint: CompiledConstraint | None = None,
        output: OutputPlan | None = None,
        echo: Echo | None = None,
        media: tuple[MediaSpan, ...] = (),
        taken: tuple[int, ...] = (),
    ) -> None:
        """`taken` is what another worker had of the answer; `resume` has to follow."""
        self.request_id = request_id
        self.request = request
        self.tokens = tokens
        self.prompt_tokens = len(tokens)
        self.window = window
        self.plan = SamplerPlan(request.sampling, seed, request.logit_bias, constraint, request.logprobs, taken)
        self.truncated = truncated
        self.answer = Answer(request, window, output, echo)
        self.media = media
        """Ranges of the prompt that are no text; their tokens are negative numbers."""
        self.computed = 0
        self.faults = 0
        """Steps with this sequence that failed in the engine."""
        self.paused = False
        self.sequence_id: int | None = None
        self.sampler: Sampler | None = None
        self.received_ns = received_ns
        self.is_background = request.priority is Priority.BACKGROUND
        self.is_shifted = False
        """Its cells are no longer those that its tokens would give: nobody may share them."""
        self.cached = CachedTokens()
        """What it did not have to compute when it first began."""
        self.awaits_other = False
        """Another sequence is computing what both begin with."""
        self.read_until_ns = 0
        """How long it waits for what the disk has of its prompt; 0 before that was asked."""
        self.shared_with: dict[str, int] = {}
        """Tokens in common with other requests, for the keeper."""
        self.retaken = 0
        """Up to here the answer's tokens are computed one at a time, as they were when another worker chose them."""
        self.rescoring: Rescoring | None = None
        """When tokens of the answer are to be scored that came from elsewhere."""
        self.stops: list[int] = []
        """Lengths at which a step has to end, because the state is wanted there."""
        self.drafter: Drafter | None = None
        """Made when there is something to guess."""
        self.guesser: Guesser | None = None
        """Judges the guesses of a draft model; made when there is one to ask."""
        self.found, self.guessed = DraftTally(), DraftTally()
        """What became of tokens that were found earlier in the text, and of those that a draft model guessed."""
        self.drafts = self.found
        """Where those in the step that is under way count."""
        self.kept_version = -1
        self.kept_length = 0
        self.first_step_ns = 0
        self.first_token_ns = 0
        self.last_token_ns = 0

    @property
    def pending(self) -> int:
        """Tokens without a KV cell."""
        return len(self.tokens) - self.computed

    @property
    def next_rows(self) -> int:
        """Tokens that may be computed in one step: those up to the next place where its state is wanted."""
        if self.prompt_tokens <= self.computed < self.retaken:
            return 1
        rows = self.pending
        ends = (*self.stops, *(span.start for span in self.media))
        if self.retaken:
            ends = (*ends, self.prompt_tokens)
        return min([rows, *(place - self.computed for place in ends if place > self.computed)])

    @property
    def next_span(self) -> MediaSpan | None:
        """What is not text and to be computed next; None while text is."""
        if not self.media:
            return None
        return next((span for span in self.media if span.start <= self.computed < span.end), None)

    @property
    def text_tokens(self) -> list[int]:
        """The tokens without those that stand for media."""
        return [token for token in self.tokens if token >= 0] if self.media else self.tokens

    @property
    def most_taken(self) -> int:
        """How many of its tokens may be there already when it begins: all but the last, or but what ends with that."""
        return whole_length(self.tokens, len(self.tokens) - 1)

    @property
    def kept_tokens(self) -> list[int]:
        """The tokens that were computed and that others may begin with."""
        return self.tokens[: whole_length(self.tokens, self.computed)]

    @property
    def is_scored(self) -> bool:
        """Whether its next rows are of a prompt whose log-probabilities are told."""
        return self.rescoring is not None or (self.answer.echo is not None and self.request.scores_prompt)

    def scoring(self, start: int, count: int) -> PromptScoring | None:
        """What to ask about the next tokens when they are computed."""
        asked = self.rescoring or self.answer.echo
        return None if asked is None else asked.scoring(start, count)

    @property
    def is_decoding(self) -> bool:
        """Whether only the token sampled last is pending."""
        return self.answer.generated > 0 and len(self.tokens) - self.computed == 1

    @property
    def most_coming(self) -> int:
        """How many tokens may still be sampled that will have a cell."""
        room = self.window - len(self.tokens) - 1
        most = self.answer.max_generated
        return max(room if most is None else min(room, most - self.answer.generated - 1), 0)

    @property
    def is_window_full(self) -> bool:
        return len(self.tokens) >= self.window

    @property
    def starts_alone(self) -> bool:
        """Whether it can take nothing over: what is not computed tells no scores, or its cells are like no others'."""
        return self.is_shifted or self.request.scores_prompt or self.rescoring is not None

    @property
    def due_ns(self) -> int:
        """Who is due earlier goes first. Background work counts as if it had come later, and so its turn comes too."""
        return self.received_ns + (BACKGROUND_DELAY_NS if self.is_background else 0)

    @property
    def next_shift(self) -> tuple[int, int]:
        """How much of the beginning stays when the window is full, and how much behind it goes."""
        keep = min(self.request.limits.num_keep, self.prompt_tokens, self.window - 2)
        return keep, max((len(self.tokens) - 1 - keep) // 2, 1)

    def forget(self, keep: int, discard: int) -> None:
        """Drop `discard` tokens after the first `keep`; their cells are the keeper's to shift."""
        original = len(self.tokens)
        del self.tokens[keep : keep + discard]
        self.computed = max(self.computed - discard, 0)
        self.is_shifted = True
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
                cached_tokens=self.cached.total,
                completion_tokens=self.answer.generated,
                queued_ns=started - self.received_ns,
                prompt_ns=first_token - started,
                decode_ns=max(self.last_token_ns - first_token, 0),
                cache=self.cached,
                drafted_tokens=self.found.drafted + self.guessed.drafted,
                accepted_tokens=self.found.accepted + self.guessed.accepted,
                draft_model_tokens=self.guessed.drafted,
                draft_model_accepted=self.guessed.accepted,
                thinking_tokens=self.answer.thinking_tokens,
                media_tokens=sum(span.piece.count for span in self.media),
            ),
            seed=self.plan.seed,
            stop_string=self.answer.stop_string,
            truncated=self.truncated,
            # Nobody could go on from numbers that stand for an image.
            context=tuple(self.tokens) if self.request.wants_context and not self.media else None,
        )

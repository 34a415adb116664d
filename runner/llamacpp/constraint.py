"""Constraints on answers: compiled once beside the engine, kept while tokens are chosen."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from runner.errors import ConstraintInvalid
from runner.llamacpp.constraint_grammar import compile_matcher
from runner.llamacpp.constraint_trials import ConstraintTrials
from runner.llamacpp.plain_constraints import is_plain
from runner.llamacpp.vocabulary import Vocabulary
from runner.sampling import Constraint, ConstraintKind

CACHED = 32
TokenIds = np.ndarray[Any, np.dtype[np.int32]]


class CompiledConstraint:
    """A constraint of one vocabulary; may be used for many requests."""

    def __init__(self, matcher: LLMatcher, compiler: ConstraintCompiler, constraint: Constraint) -> None:
        self._matcher = matcher
        self._compiler = compiler
        self._constraint = constraint

    def begin(self) -> ConstraintState:
        constraint = self._constraint
        return ConstraintState(
            self._matcher.deep_copy(), self._compiler, constraint.after, is_optional=constraint.is_optional
        )


class ConstraintCompiler:
    """Compiles for one vocabulary and remembers the latest. May be called from any thread.

    What may take long, or end the process, is tried in another one before.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._trials = ConstraintTrials()
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[ConstraintKind, str], LLMatcher] = OrderedDict()

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """Blocks; a refusal comes within two seconds: ConstraintInvalid, which names what cannot be honoured."""
        key = (constraint.kind, constraint.source)
        with self._lock:
            tokenizer = self.tokenizer
            matcher = self._compiled.get(key)
            if matcher is not None:
                self._compiled.move_to_end(key)
        if matcher is None:
            if not is_plain(constraint):
                self._trials.try_out(constraint)
            matcher = compile_matcher(constraint, tokenizer)
            with self._lock:
                self._compiled[key] = matcher
                while len(self._compiled) > CACHED:
                    self._compiled.popitem(last=False)
        if constraint.begun:
            matcher = _advanced(matcher, tokenizer, constraint)
        return CompiledConstraint(matcher, self, constraint)

    def close(self) -> None:
        self._trials.close()

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        """Takes a moment to make; held while `compile` has the lock."""
        wrapper = TokenizerWrapper(_TokenizerParts(self.vocabulary))
        return LLTokenizer(wrapper, eos_token=[int(token) for token in self.end_tokens])

    @cached_property
    def end_tokens(self) -> TokenIds:
        vocabulary = self.vocabulary
        ends = [token for token in range(vocabulary.size) if vocabulary.ends_generation(token)]
        return np.array(ends, dtype=np.int32)

    @cached_property
    def free_tokens(self) -> TokenIds:
        """All tokens but those that end an answer."""
        return np.setdiff1d(np.arange(self.vocabulary.size, dtype=np.int32), self.end_tokens)


class ConstraintState:
    """Where one answer stands in its constraint. Used on the engine thread."""

    def __init__(
        self, matcher: LLMatcher, compiler: ConstraintCompiler, after: str | None, *, is_optional: bool = False
    ) -> None:
        self._is_optional = is_optional
        self._matcher = matcher
        self._compiler = compiler
        self._mask = np.zeros((compiler.vocabulary.size + 31) // 32, dtype=np.int32)
        self._awaited = after.encode() if after else None
        self._heard = b""
        self.failure: str | None = None
        """Why the answer cannot go on within the constraint."""
        self.is_complete = False
        """Whether nothing may follow any more."""

    def allowed(self) -> TokenIds | None:
        """The tokens that may come next, in ascending order, or None for all; empty when `failure` says why."""
        if self._awaited is not None:
            return None if self._is_optional else self._compiler.free_tokens
        mask = self._mask
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._fails():
            return np.empty(0, dtype=np.int32)
        bits = np.unpackbits(mask.view(np.uint8), count=self._compiler.vocabulary.size, bitorder="little")
        allowed = np.flatnonzero(bits).astype(np.int32)
        if not allowed.size:
            self.failure = "no token of this model can continue it"
        return allowed

    def permits(self, token: int) -> bool:
        """Whether `token`, one of those allowed, may come: it can end the free part and begin the other one badly."""
        if self._awaited is None:
            return True
        rest = self._rest_after(token)
        return not rest or self._matcher.validate_tokens(rest) == len(rest)

    def accept(self, token: int) -> None:
        """The token that was chosen; then `is_complete` and `failure` are up to date."""
        if self._awaited is not None:
            self._listen(token)
        elif not self._compiler.vocabulary.ends_generation(token):
            self._matcher.consume_token(token)
        self.is_complete = self._awaited is None and not self._fails() and self._matcher.is_stopped()

    def _listen(self, token: int) -> None:
        rest = self._rest_after(token)
        if rest is None:
            keep = len(self._awaited or b"")
            self._heard = (self._heard + self._compiler.vocabulary.written(token))[-keep:]
            return
        if self._is_optional and self._matcher.validate_tokens(rest) < len(rest):
            # What came in one token with the awaited text is not what may follow it: then it was not meant.
            self._heard = b""
            return
        self._awaited = None
        if rest:
            self._matcher.consume_tokens(rest)

    def _rest_after(self, token: int) -> list[int] | None:
        """The tokens of what stands behind the awaited text when `token` completes it; spaces there are passed over."""
        assert self._awaited is not None
        said = self._heard + self._compiler.vocabulary.written(token)
        _, found, rest = said.partition(self._awaited)
        if not found:
            return None
        rest = rest if self._is_optional else rest.lstrip()
        return self._compiler.tokenizer.tokenize_bytes(rest) if rest else []

    def _fails(self) -> bool:
        if self._matcher.is_error():
            self.failure = _first_line(self._matcher.get_error())
        return self.failure is not None


class _TokenizerParts:
    """What the compiler asks of a tokenizer, under the names it looks for."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        tokens = range(vocabulary.size)
        self.tokens = [vocabulary.written(token) for token in tokens]
        self.special_token_ids = [token for token in tokens if vocabulary.is_special(token)]
        self.eos_token_id = next((token for token in tokens if vocabulary.ends_generation(token)), 0)
        self.bos_token_id = None

    def __call__(self, text: bytes | str) -> list[int]:
        written = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._vocabulary.tokenize(written, add_special=False, parse_special=False)


def _advanced(matcher: LLMatcher, tokenizer: LLTokenizer, constraint: Constraint) -> LLMatcher:
    """The matcher where the answer stands that is begun already. Raises ConstraintInvalid when it is begun wrongly."""
    tokens = tokenizer.tokenize_bytes(constraint.begun.encode())
    advanced = matcher.deep_copy()
    if advanced.validate_tokens(tokens) < len(tokens) or not advanced.consume_tokens(tokens):
        raise ConstraintInvalid("The answer is begun with what its format does not allow.", constraint.field)
    return advanced


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].rstrip(".")[:200]

"""Constraints compiled by llguidance: what may be asked of it, and how it is to read schemas."""

from __future__ import annotations

import logging
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from runner.errors import ConstraintInvalid
from runner.llamacpp.constraint_limits import Excessive, check_lark, check_regex, check_schema, check_size
from runner.llamacpp.gbnf import GbnfError, to_lark
from runner.sampling import Constraint, ConstraintKind

logger = logging.getLogger(__name__)

_LIMITS = LLParserLimits(
    max_items_in_row=10_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=50_000,
    step_max_items=50_000,
    max_lexer_states=25_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
"""Most steps take well under a millisecond. The most expensive that was found takes 0.2 s (1,500 rules that may all be
left out), an object of 2,000 properties 30 ms; one request may hold 50 MB."""
_JSON_OPTIONS: dict[str, Any] = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": True,
    # Small models like to say nothing but spaces for ever.
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}",
    "coerce_one_of": False,
    "lenient": False,
    # A name written in another way must not pass for an undeclared one: no \u and no \/.
    "json_allowed_escapes": '"\\bfnrt',
}
"""All of them, so that nothing in a schema can change one."""


def compile_matcher(constraint: Constraint, tokenizer: LLTokenizer) -> LLMatcher:
    """What follows answers within a constraint. Takes as long as it takes; raises ConstraintInvalid."""
    try:
        grammar = _grammar(constraint)
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
        if not matcher.is_error():
            # The first mask shows what only a step would, and what is learned serves all copies.
            matcher.compute_bitmask()
        problem = matcher.get_error() if matcher.is_error() else ""
    except (Excessive, GbnfError, ValueError) as error:
        problem = str(error)
    except BaseException as error:
        # A panic of the compiler is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        logger.exception("a constraint could not be compiled")
        problem = "the compiler failed"
    if problem:
        raise refusal(constraint, problem)
    return matcher


def problem_of(error: ConstraintInvalid) -> str:
    """What `refusal` was made of."""
    return error.message.partition(" cannot be honoured: ")[2]


def refusal(constraint: Constraint, problem: str) -> ConstraintInvalid:
    """The error that says why a constraint cannot be honoured."""
    told = problem.removeprefix("WARNING: ").strip().rstrip(".")[:500]
    called = _CALLED[constraint.kind]
    return ConstraintInvalid(f"{called} in {constraint.field} cannot be honoured: {told}.", constraint.field)


def _grammar(constraint: Constraint) -> str:
    source = constraint.source
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            check_schema(source)
            return LLMatcher.grammar_from_json_schema(source, overrides=_JSON_OPTIONS)  # type: ignore[arg-type]
        case ConstraintKind.REGEX:
            check_regex(source)
            return LLMatcher.grammar_from_regex(source)
        case ConstraintKind.LARK:
            check_lark(source)
            return LLMatcher.grammar_from_lark(source)
        case ConstraintKind.GBNF:
            check_size(source)
            return LLMatcher.grammar_from_lark(to_lark(source))


_CALLED = {
    ConstraintKind.JSON_SCHEMA: "The JSON schema",
    ConstraintKind.REGEX: "The regular expression",
    ConstraintKind.LARK: "The Lark grammar",
    ConstraintKind.GBNF: "The GBNF grammar",
}

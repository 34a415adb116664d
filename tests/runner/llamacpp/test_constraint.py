"""What constraints promise, on a model that would say anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from runner.engine import SamplerPlan
from runner.errors import ConstraintInvalid
from runner.llamacpp.constraint import CompiledConstraint
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.llamacpp.sampler import ShapedSampler, native_seed
from runner.loaded_model import LoadOptions
from runner.sampling import Constraint, ConstraintKind, SamplingParams
from tests.runner.llamacpp.answering import OPEN, Answerer, answer, compiled_state, constraint


@pytest.fixture(scope="module")
def engine(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(library, tiny_model, LoadOptions(2048, max_sequences=4, num_batch=64, num_thread=1))
    yield engine
    engine.close()


# --- what is promised: the text is valid, or it had no more room ----------------------------------

_names = st.sampled_from(["a", "b", "name", "é", "x y", 'q"'])
_texts = st.text(max_size=5)
_plain = st.one_of(
    st.just({"type": "string", "maxLength": 6}),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    st.sampled_from(
        [{"type": "string", "pattern": pattern} for pattern in ("^[a-c]{1,3}$", "^(ab|cd)?x$", r"^\d{2}-\d$")]
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-1000, 1000),
        st.integers(0, 50),
    ),
    st.builds(
        lambda low, more: {"type": "number", "exclusiveMinimum": low, "maximum": low + more},
        st.integers(-50, 50),
        st.integers(1, 9),
    ),
    st.builds(lambda step: {"type": "integer", "multipleOf": step}, st.integers(1, 12)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
    st.builds(
        lambda values: {"enum": values}, st.lists(st.one_of(_texts, st.integers(), st.none()), min_size=1, max_size=4)
    ),
    st.builds(
        lambda value: {"const": value}, st.one_of(_texts, st.integers(-5, 5), st.lists(st.integers(), max_size=2))
    ),
)


def _containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def build_object(properties: dict[str, Any], required: int, extra: object) -> dict[str, Any]:
        built: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)[:required]}
        return built if extra is None else built | {"additionalProperties": extra}

    return st.one_of(
        st.builds(
            build_object,
            st.dictionaries(_names, inner, max_size=4),
            st.integers(0, 4),
            st.one_of(st.none(), st.just(False), inner),
        ),
        st.builds(
            lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        st.builds(
            lambda items: {"type": "array", "prefixItems": items, "items": False},
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda target, many: {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/node"}, "v": target},
                "required": ["v"],
                "additionalProperties": False,
                "$defs": {"unused": many},
            },
            inner,
            inner,
        ),
    )


_schemas = st.recursive(_plain, _containers, max_leaves=6)


def _rooted(schema: dict[str, Any]) -> dict[str, Any]:
    """With the definition that references inside lead to."""
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "additionalProperties": False,
    }
    return {"allOf": [schema], "$defs": {"node": node}} if "$defs" in schema else schema | {"$defs": {"node": node}}


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(_schemas.map(_rooted), st.integers(0, 2**31))
def test_an_answer_is_valid_or_had_no_more_room(engine: LlamaEngine, schema: dict[str, Any], seed: int) -> None:
    try:
        text, has_ended = answer(engine, constraint(ConstraintKind.JSON_SCHEMA, schema), seed=seed, count=150)
    except ConstraintInvalid as refused:
        assert refused.facts == {"field": "format"}
        event("refused")
        return
    event("ended" if has_ended else "no more room")
    if has_ended:
        jsonschema.validate(json.loads(text), schema)


def test_json_mode_gives_an_object(engine: LlamaEngine) -> None:
    for seed in range(8):
        text, has_ended = answer(engine, constraint(ConstraintKind.JSON_SCHEMA, {"type": "object"}), seed=seed)
        if has_ended:
            assert isinstance(json.loads(text), dict)


def test_a_name_written_in_another_way_does_not_pass_for_an_undeclared_one(engine: LlamaEngine) -> None:
    schema = {"type": "object", "properties": {"a/b": {"type": "null"}}}
    compiled = engine.compile_constraint(constraint(ConstraintKind.JSON_SCHEMA, schema))
    for disguised in ('{"a\\/b', '{"\\u0061'):
        assert not follows(engine, compiled, disguised), disguised
    assert follows(engine, compiled, '{"a/b":null')
    values = engine.compile_constraint(constraint(ConstraintKind.JSON_SCHEMA, {"enum": ["\n\t\b", "\\\\u0007"]}))
    assert follows(engine, values, json.dumps("\n\t\b"))
    assert follows(engine, values, json.dumps("\\\\u0007"))


def follows(engine: LlamaEngine, compiled: CompiledConstraint, text: str) -> bool:
    state = compiled.begin()
    for token in engine.tokenize(text, add_special=False, parse_special=False):
        allowed = state.allowed()
        if allowed is None or token not in allowed:
            return False
        state.accept(token)
    return True


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        (ConstraintKind.REGEX, r"\d{4}-\d\d", r"\d{4}-\d\d"),
        (ConstraintKind.REGEX, "(ab|cd)+", "(ab|cd)+"),
        (ConstraintKind.LARK, 'start: "yes" | "no" | NUMBER\nNUMBER: /[0-9]{1,3}/', r"yes|no|\d{1,3}"),
        (ConstraintKind.GBNF, 'root ::= item{2,3}\nitem ::= "- " [a-c]+ "\\n"', r"(- [a-c]+\n){2,3}"),
        # Greedy lexemes would swallow the end of the first and so never come to the second.
        (ConstraintKind.GBNF, 'root ::= word "x"\nword ::= [a-z]{2,4}', "[a-z]{2,4}x"),
        (ConstraintKind.GBNF, 'root ::= "ab" "c" "d"? | "abc" "e"', "abcd?|abce"),
        (ConstraintKind.GBNF, 'root ::= "(" root ")" | [^a-z()"\\\\ -~]', r"\(*[^ -~]\)*"),
    ],
)
def test_an_answer_matches_its_grammar(engine: LlamaEngine, kind: ConstraintKind, source: str, pattern: str) -> None:
    ended = 0
    for seed in range(12):
        text, has_ended = answer(engine, constraint(kind, source), seed=seed, count=100)
        ended += has_ended
        if has_ended:
            assert re.fullmatch(pattern, text, re.DOTALL), text
    assert ended


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0), SamplingParams(mirostat=1), SamplingParams(mirostat=2),
        SamplingParams(typical_p=0.5), SamplingParams(top_k=1), SamplingParams(min_p=0.9),
        SamplingParams(temperature=5, top_k=0, top_p=1), SamplingParams(repeat_penalty=2, repeat_last_n=-1),
        SamplingParams(presence_penalty=50, frequency_penalty=50),
    ],
)  # fmt: skip
def test_no_sampler_brings_a_forbidden_token_back(engine: LlamaEngine, params: SamplingParams) -> None:
    for seed in range(3):
        text, has_ended = answer(
            engine, constraint(ConstraintKind.REGEX, "[abc]{5}[xyz]{5}"), params=params, seed=seed, count=20
        )
        assert has_ended
        assert re.fullmatch("[abc]{5}[xyz]{5}", text)


def test_the_end_is_only_allowed_where_the_grammar_ends(engine: LlamaEngine) -> None:
    ends = set(engine._constraints.end_tokens.tolist())
    state = compiled_state(engine, constraint(ConstraintKind.REGEX, "a{2}b*"))
    for character, may_end in (("a", False), ("a", True), ("b", True)):
        state.accept(ord(character))
        allowed = state.allowed()
        assert allowed is not None
        assert bool(ends & set(allowed.tolist())) is may_end
        assert not state.is_complete


def test_an_answer_ends_at_once_when_nothing_may_follow(engine: LlamaEngine) -> None:
    state = compiled_state(engine, constraint(ConstraintKind.REGEX, "ab"))
    state.accept(ord("a"))
    assert not state.is_complete
    state.accept(ord("b"))
    assert state.is_complete


# --- beside others --------------------------------------------------------------------------------


def test_a_constraint_changes_nothing_for_the_other_rows_of_a_step(engine: LlamaEngine) -> None:
    greedy = SamplingParams(temperature=0)

    def run(neighbour: Constraint | None) -> list[bytes]:
        compiled = neighbour and engine.compile_constraint(neighbour)
        plans = [SamplerPlan(greedy, 1), SamplerPlan(OPEN, 5, constraint=compiled), SamplerPlan(OPEN, 6)]
        answerers = [Answerer(engine, number, plan) for number, plan in enumerate(plans)]
        for _ in range(40):
            for one, token in zip(answerers, engine.step([one.chunk() for one in answerers]), strict=True):
                one.take(token)
        for one in answerers:
            one.close()
        return [one.text for one in answerers]

    free, bound = run(None), run(constraint(ConstraintKind.REGEX, "[a-d]{100}"))
    # The neighbours see other cells, so that only the beginning of their text has to be the same.
    assert free[0][:10] == bound[0][:10]
    assert re.fullmatch(b"[a-d]{40}", bound[1])
    assert not re.fullmatch(b"[a-d]*", bound[2])


# --- what comes only after something was said -----------------------------------------------------


def test_before_the_awaited_text_everything_but_the_end_is_allowed(engine: LlamaEngine) -> None:
    state = compiled_state(engine, constraint(ConstraintKind.REGEX, "[ab]{3}", after="</t>"))
    for byte in b"I think < /t> </t":
        allowed = state.allowed()
        assert allowed is not None
        assert len(allowed) == engine.info.vocabulary - len(engine._constraints.end_tokens)
        state.accept(byte)
    state.accept(ord(">"))
    allowed = state.allowed()
    assert allowed is not None
    assert allowed.tolist() == [ord("a"), ord("b")]
    for byte in b"aba":
        state.accept(byte)
    assert state.is_complete


def test_an_answer_that_never_says_it_is_not_ended_by_the_model(engine: LlamaEngine) -> None:
    wanted = constraint(ConstraintKind.REGEX, "[ab]{3}", after="never said this way")
    text, has_ended = answer(engine, wanted, count=300)
    assert not has_ended
    assert text


def test_an_answer_that_goes_on_is_held_to_what_may_follow_its_tokens(engine: LlamaEngine) -> None:
    compiled = engine.compile_constraint(Constraint(ConstraintKind.REGEX, "(abc|xyz){2}", "format"))
    taken = tuple(engine.tokenize("abcx", add_special=False, parse_special=False))
    state = compiled.begin()
    for token in taken:
        state.accept(token)
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(), 1, constraint=compiled, taken=taken), [*taken])
    assert isinstance(sampler, ShapedSampler)
    sampler.prepare()
    allowed, expected = sampler._allowed, state.allowed()
    assert allowed is not None and expected is not None and allowed.tolist() == expected.tolist()
    assert not set(allowed) & set(engine.tokenize("a", add_special=False, parse_special=False))
    sampler.close()


def test_random_numbers_of_an_answer_that_goes_on_are_others_and_come_again() -> None:
    seeds = [native_seed(7, taken) for taken in range(100)]
    assert seeds[0] == 7 and len(set(seeds)) == 100 and seeds == [native_seed(7, taken) for taken in range(100)]

"""From a request to the tokens of its prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.types import ChatPrompt, ChatRequest, InsertPrompt, Limits, Message, TextPrompt, TokenPrompt
from runner.engine import InsertTokens
from runner.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from runner.worker.prompt import drop_oldest_turns, prepare_prompt
from tests.fake_engine import ALPHABET, FakeEngine


def text_of(tokens: list[int]) -> str:
    return "".join(ALPHABET[token] for token in tokens)


def chat(*turns: tuple[str, str], limits: Limits | None = None) -> ChatRequest:
    return ChatRequest(ChatPrompt(tuple(Message(*turn) for turn in turns)), limits=limits or Limits())


def test_a_conversation_is_rendered_by_the_models_template() -> None:
    prepared = prepare_prompt(chat(("user", "hi")), FakeEngine())
    assert text_of(prepared.tokens) == "uahi.aa".replace("uahi", "u" + ALPHABET[0] + "hi")
    assert prepared.truncated is None


def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        prepare_prompt(ChatRequest(TextPrompt("x" * 64)), FakeEngine(cells=64))
    assert caught.value.facts == {"prompt_tokens": 64, "context_length": 64}


def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    assert len(prepare_prompt(ChatRequest(TextPrompt("x" * 63)), FakeEngine(cells=64)).tokens) == 63


def test_a_request_may_ask_for_a_smaller_window_but_gets_no_larger_one() -> None:
    engine = FakeEngine(cells=64)
    assert prepare_prompt(ChatRequest(TextPrompt("x"), limits=Limits(num_ctx=16)), engine).window == 16
    assert prepare_prompt(ChatRequest(TextPrompt("x"), limits=Limits(num_ctx=1000)), engine).window == 64


def test_shortening_keeps_the_system_message_and_the_last_turn() -> None:
    request = chat(
        ("system", "be kind"),
        *[("user" if number % 2 == 0 else "assistant", "word word word") for number in range(10)],
        ("user", "last"),
        limits=Limits(truncate=True, num_predict=4),
    )
    prepared = prepare_prompt(request, FakeEngine(cells=80))
    text = text_of(prepared.tokens)
    assert "be kind" in text
    assert "last" in text
    assert len(prepared.tokens) <= 76
    assert prepared.truncated is not None
    assert prepared.truncated.strategy == "drop_oldest_turns"
    assert prepared.truncated.kept == len(prepared.tokens)


def test_a_last_turn_that_does_not_fit_alone_is_refused_even_when_shortening_is_allowed() -> None:
    request = chat(("user", "a"), ("assistant", "b"), ("user", "x" * 100), limits=Limits(truncate=True))
    with pytest.raises(ContextLengthExceeded) as caught:
        prepare_prompt(request, FakeEngine(cells=64))
    assert "truncate" not in caught.value.message, "it was passed already"
    assert "even without its oldest turns" in caught.value.message


def test_a_raw_prompt_is_shortened_in_the_middle() -> None:
    request = ChatRequest(TextPrompt("abcd" + "x" * 100 + "yz"), limits=Limits(truncate=True, num_keep=4))
    prepared = prepare_prompt(request, FakeEngine(cells=64))
    text = text_of(prepared.tokens)
    assert text.startswith("abcdx")
    assert text.endswith("xyz")
    assert len(text) == 48


def test_earlier_tokens_stand_in_front_and_are_checked_against_the_vocabulary() -> None:
    engine = FakeEngine()
    assert prepare_prompt(ChatRequest(TextPrompt("a"), context=(5, 6)), engine).tokens == [5, 6, 0]
    for foreign in (-1, engine.info.vocabulary, 2**40):
        with pytest.raises(InvalidRequest, match="vocabulary"):
            prepare_prompt(ChatRequest(TextPrompt("a"), context=(foreign,)), engine)


def test_a_text_too_long_for_any_window_is_refused_before_it_is_tokenized() -> None:
    class Untouched(FakeEngine):
        def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
            raise AssertionError("tokenized")

    with pytest.raises(ContextLengthExceeded, match="at least 100000") as caught:
        prepare_prompt(ChatRequest(TextPrompt("x" * 100_000)), Untouched())
    assert caught.value.facts["prompt_tokens"] == 100_000


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        prepare_prompt(ChatRequest(TextPrompt("")), FakeEngine())


_messages = st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=12).map(
    lambda roles: tuple(Message(role, str(number)) for number, role in enumerate(roles))
)


@given(_messages, st.integers(0, 12))
def test_as_few_turns_are_dropped_as_possible(messages: tuple[Message, ...], room: int) -> None:
    kept = drop_oldest_turns(messages, lambda those: len(those) <= room)
    systems = [message for message in messages if message.role == "system"]
    assert [message for message in kept if message.role == "system"] == systems
    assert messages[-1] in kept
    assert list(kept) == [message for message in messages if message in kept], "the order stays"
    dropped = [message for message in messages if message not in kept]
    if dropped:
        spoken = [message for message in kept if message.role != "system"]
        assert spoken[0].role == "user"
        users = [message for message in messages if message.role == "user"]
        last_dropped = [message for message in dropped if message.role == "user"][-1]
        begin = 0 if last_dropped == users[0] else messages.index(last_dropped)
        with_it = [message for number, message in enumerate(messages) if message in kept or number >= begin]
        assert len(with_it) > room, "one turn fewer would not have fitted"


def test_an_insertion_is_marked_with_the_models_own_tokens() -> None:
    class Inserting(FakeEngine):
        @property
        def insert_tokens(self) -> InsertTokens | None:
            return InsertTokens(prefix=20, suffix=21, middle=22)

    request = ChatRequest(InsertPrompt("ab", "c"))
    assert prepare_prompt(request, Inserting()).tokens == [20, 0, 1, 21, 2, 22]
    with pytest.raises(Unsupported, match="does not support insert"):
        prepare_prompt(request, FakeEngine())


def test_tokens_are_taken_as_they_are_when_the_model_has_them() -> None:
    prepared = prepare_prompt(ChatRequest(TokenPrompt((0, 1, 2))), FakeEngine())
    assert (prepared.tokens, prepared.text) == ([0, 1, 2], "abc")
    for foreign in (-1, 29):
        with pytest.raises(InvalidRequest):
            prepare_prompt(ChatRequest(TokenPrompt((0, foreign))), FakeEngine())

"""The tree of kept prefixes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.worker.prefix_cache import PrefixCache, Segment, shared_length

_tokens = st.lists(st.integers(0, 2), max_size=24)


def keep(cache: PrefixCache, tokens: list[int], *, scope: str = "", most: int = 4) -> list[Segment]:
    """Save all of a sequence as the worker does, a state being its tokens as bytes."""
    added = []
    while (missing := cache.next_missing(scope, tokens, len(tokens), most)) is not None:
        start, end = missing
        segment = cache.add(scope, tokens, start, end, memoryview(bytes(tokens[start:end])))
        if segment is None:
            break
        added.append(segment)
    cache.use(added)
    return added


def found_tokens(cache: PrefixCache, tokens: list[int], *, scope: str = "") -> list[int]:
    """What the states on the way hold, put together as they would be restored."""
    held: list[int] = []
    for segment, end in cache.find(scope, tokens, len(tokens)):
        assert segment.start == len(held)
        assert segment.state is not None
        held += segment.state.tolist()[: end - segment.start]
    return held


@given(_tokens, _tokens)
def test_the_shared_length_is_where_two_sequences_part(one: list[int], other: list[int]) -> None:
    length = shared_length(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_shared_length_of_long_sequences_is_exact(length: int, parts_at: int) -> None:
    one = list(range(length))
    other = list(one)
    if parts_at < length:
        other[parts_at] = -1
    assert shared_length(one, other) == min(length, parts_at)


@given(st.lists(_tokens, max_size=10), _tokens, st.integers(1, 6))
def test_a_prompt_gets_credit_for_the_longest_prefix_that_is_kept(
    kept: list[list[int]], prompt: list[int], most: int
) -> None:
    cache = PrefixCache(10_000)
    for tokens in kept:
        keep(cache, tokens, most=most)
    longest = max((shared_length(tokens, prompt) for tokens in kept), default=0)
    assert found_tokens(cache, prompt) == prompt[:longest]
    assert len(cache.match("", prompt, max(longest - 1, 0))) <= len(cache.match("", prompt, longest))


@given(st.lists(_tokens, max_size=12), st.integers(0, 40))
def test_a_small_budget_is_kept_and_what_is_found_is_right(kept: list[list[int]], budget: int) -> None:
    cache = PrefixCache(budget)
    for tokens in kept:
        keep(cache, tokens)
        assert cache.memory_used <= budget
        for prompt in kept:
            held = found_tokens(cache, prompt)
            assert held == prompt[: len(held)]


def test_shared_prefixes_are_stored_once() -> None:
    cache = PrefixCache(10_000)
    shared = [1] * 100
    for ending in range(10):
        keep(cache, [*shared, 2, ending], most=32)
    assert cache.memory_used == 100 + 2 + 9 * 1


def test_a_prompt_that_leaves_a_segment_in_its_middle_gets_credit_up_to_there() -> None:
    cache = PrefixCache(10_000)
    keep(cache, list(range(100)), most=100)
    branch = [*range(70), 200, 201]
    assert found_tokens(cache, branch) == list(range(70))
    [added] = keep(cache, branch)
    assert (added.start, added.end) == (70, 72)
    assert found_tokens(cache, branch) == branch
    assert found_tokens(cache, list(range(100))) == list(range(100))


def test_scopes_share_nothing() -> None:
    cache = PrefixCache(10_000)
    keep(cache, [1, 2, 3], scope="one")
    assert found_tokens(cache, [1, 2, 3], scope="two") == []
    assert cache.root("one").key != cache.root("two").key


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = PrefixCache(30)
    first, second, third = ([number] * 10 for number in (1, 2, 3))
    for tokens in (first, second, third):
        keep(cache, tokens, most=10)
    cache.use([segment for segment, _ in cache.find("", first, 10)])
    keep(cache, [4] * 10, most=10)
    assert found_tokens(cache, first) == first
    assert found_tokens(cache, second) == []
    assert found_tokens(cache, third) == third


def test_many_short_requests_do_not_push_out_a_long_conversation() -> None:
    cache = PrefixCache(1000)
    conversation = [number % 200 for number in range(900)]
    keep(cache, conversation, most=100)
    for number in range(40):
        keep(cache, [201, number, *([1] * 18)], most=100)
    assert found_tokens(cache, conversation) == conversation
    assert found_tokens(cache, [201, 39, *([1] * 18)]), "the newest short request is kept as well"


def test_a_conversation_nobody_takes_up_goes_in_the_end() -> None:
    cache = PrefixCache(1000)
    keep(cache, [number % 200 for number in range(900)], most=100)
    for number in range(200):
        keep(cache, [201, number, *([1] * 18)], most=100)
    assert len(found_tokens(cache, [number % 200 for number in range(900)])) < 900


def test_the_end_of_a_conversation_goes_before_its_beginning() -> None:
    cache = PrefixCache(50)
    keep(cache, list(range(50)), most=10)
    keep(cache, [100] * 200, most=10)
    held = found_tokens(cache, list(range(50)))
    assert held == list(range(len(held)))
    assert len(held) < 50


def test_a_state_that_is_larger_than_the_budget_is_not_kept_and_nothing_goes_for_it() -> None:
    cache = PrefixCache(20)
    keep(cache, [1] * 10, most=10)
    assert cache.add("", [2] * 30, 0, 30, memoryview(bytes(30))) is None
    assert found_tokens(cache, [1] * 10) == [1] * 10
    assert cache.match("", [2] * 30, 30) == []


def test_a_segment_on_disk_outlives_its_state_and_takes_it_back() -> None:
    cache = PrefixCache(1000)
    tokens = list(range(20))
    first, second = keep(cache, tokens, most=10)
    for segment in (first, second):
        segment.is_on_disk = True
    for segment in (second, first):
        cache.drop_state(segment)
    assert [segment for segment, _ in cache.find("", tokens, 20)] == [first, second]
    assert cache.memory_used == 0
    assert cache.put(first, memoryview(bytes(tokens[:10])))
    cache.lose_file(second)
    assert found_tokens(cache, tokens) == tokens[:10]
    assert cache.next_missing("", tokens, 20, 10) == (10, 20)


def test_a_segment_that_lost_everything_and_leads_to_others_comes_back_as_it_was() -> None:
    cache = PrefixCache(1000)
    tokens = list(range(20))
    first, second = keep(cache, tokens, most=10)
    second.is_on_disk = True
    cache.drop_state(second)
    cache.drop_state(first)
    assert cache.find("", tokens, 20) == []
    assert cache.next_missing("", tokens, 20, 4) == (0, 10)
    assert cache.next_missing("", tokens, 5, 4) is None
    assert cache.add("", tokens, 0, 10, memoryview(bytes(tokens[:10]))) is first


def test_a_key_names_the_tokens_their_place_and_all_before_them() -> None:
    keys = set()
    for tokens in ([1, 2, 3, 4], [9, 2, 3, 4], [1, 2, 3, 5]):
        cache = PrefixCache(1000)
        keys |= {segment.key for segment in keep(cache, tokens, most=2)}
    assert len(keys) == 5
    again = keep(PrefixCache(1000), [1, 2, 3, 4], most=2)
    assert {segment.key for segment in again} <= keys

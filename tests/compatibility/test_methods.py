"""Every method of the official clients is called in an end-to-end test, streamed and not, or it is said why not."""

from __future__ import annotations

import pytest

from tests.compatibility.calls import CLIENTS, Call, calls_in_tests
from tests.compatibility.methods import HERE, NOT_HERE, Method, async_methods, entry_of, methods

NEVER_STREAMED = {
    ("openai", "responses.parse"): "the client reads no stream there; it has responses.stream for it",
}
"""Methods that could be asked for a stream elsewhere."""


def wanted(found: tuple[Method, ...], *, is_async: bool) -> set[Call]:
    calls = set()
    for method in found:
        if entry_of(method) is None:
            calls.add(Call(method.client, method.path, is_async, is_streamed=False))
            if method.can_stream and (method.client, method.path) not in NEVER_STREAMED:
                calls.add(Call(method.client, method.path, is_async, is_streamed=True))
    return calls


@pytest.mark.parametrize("is_async", [False, True], ids=["waiting", "asynchronous"])
def test_every_method_that_makes_sense_here_is_called_streamed_and_not(is_async: bool) -> None:
    missing = wanted(async_methods() if is_async else methods(), is_async=is_async) - calls_in_tests()
    assert not missing, sorted(missing)


def test_what_is_called_is_not_said_to_make_no_sense() -> None:
    for method in methods():
        if entry_of(method) is not None:
            assert not [call for call in calls_in_tests() if (call.client, call.path) == (method.client, method.path)]


def test_every_name_in_the_tables_is_one_of_a_client() -> None:
    entries = {(method.client, entry_of(method)) for method in methods()}
    for client in CLIENTS:
        assert {name for name in NOT_HERE[client] if (client, name) not in entries} == set()
        for name in HERE[client]:
            assert any(method.client == client and method.path.startswith(f"{name}.") for method in methods())
    streamed = {(method.client, method.path) for method in methods() if method.can_stream}
    assert set(NEVER_STREAMED) <= streamed


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("wrapper", ["with_raw_response", "with_streaming_response"])
def test_answers_are_also_taken_as_they_come(client: str, wrapper: str) -> None:
    calls = {(call.client, call.wrapper, call.is_async) for call in calls_in_tests()}
    assert {(client, wrapper, False), (client, wrapper, True)} <= calls

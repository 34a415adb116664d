"""What requests and answers are made of."""

from __future__ import annotations

import pytest

from runner.chat.types import ToolCall


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ('{"a": [1]}', {"a": [1]}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ('{"a": "\\ud83d", "b": "x"}', {"a": "\ufffd", "b": "x"}),
        ('{"a": "cut', None),
        ("[1]", None),
        ("[" * 100_000, None),
    ],
)
def test_a_calls_arguments_are_an_object_that_can_be_sent(text: str, arguments: dict[str, object] | None) -> None:
    found = ToolCall("1", "f", text).parsed()
    assert found == arguments
    if found is not None:
        str(found).encode()

"""Options: kinds and ranges, and errors that name both."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest
from registry.parameters import PARAMETERS, REMOVED, check_parameter, parse_parameter


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num_ctx", "4096", 4096),
        ("seed", "-1", -1),
        ("temperature", "0.3", 0.3),
        ("temperature", "1", 1.0),
        ("top_p", "1e-2", 0.01),
        ("use_mmap", "False", False),
        ("use_mmap", "t", True),
        ("stop", "<|im_end|>", ["<|im_end|>"]),
        ("mirostat", "2", 2),
        ("kv_cache_type", "q8_0", "q8_0"),
        ("tensor_split", "3,1", ["3", "1"]),
        ("tensor_split", "0.5", ["0.5"]),
    ],
)
def test_a_modelfile_value_is_read_in_its_kind(name: str, text: str, value: object) -> None:
    parsed = parse_parameter(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("num_ctx", "4096 # comment"),
        ("num_ctx", "many"),
        ("num_ctx", "3"),
        ("num_ctx", "9" * 5000),
        ("temperature", "nan"),
        ("temperature", "-0.1"),
        ("temperature", "inf"),
        ("top_p", "1.1"),
        ("use_mmap", "yes"),
        ("seed", "4294967295"),
        ("stop", ""),
        ("kv_cache_type", "q5_0"),
        ("tensor_split", "3;1"),
        ("tensor_split", "-1"),
    ],
)
def test_a_wrong_modelfile_value_names_the_option_and_what_is_allowed(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_parameter(name, text)
    assert refused.value.message.startswith(f"{name} must be {PARAMETERS[name].allowed}, not ")
    assert refused.value.facts["field"] == name
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("name", "value", "checked"),
    [
        ("num_ctx", 2048.0, 2048),
        ("top_k", 0, 0),
        ("temperature", 1, 1.0),
        ("stop", "x", ["x"]),
        ("stop", ["a", "b"], ["a", "b"]),
        ("stop", [], []),
        ("use_mmap", True, True),
        ("tensor_split", [3, 1.5], ["3", "1.5"]),
        ("tensor_split", 2, ["2"]),
        ("flash_attention", "off", "off"),
    ],
)
def test_a_json_value_is_taken_in_its_kind(name: str, value: object, checked: object) -> None:
    result = check_parameter(name, value)
    assert result == checked
    assert type(result) is type(checked)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_ctx", 2048.5),
        ("num_ctx", True),
        ("num_ctx", "2048"),
        ("num_ctx", None),
        ("num_ctx", 10**400),
        ("temperature", 10**400),
        ("temperature", math.nan),
        ("temperature", False),
        ("use_mmap", 1),
        ("stop", [""]),
        ("stop", [1]),
        ("stop", ["x"] * 257),
        ("stop", {"a": 1}),
        ("flash_attention", True),
        ("kv_cache_type", ["f16"]),
        ("tensor_split", []),
        ("tensor_split", [math.nan]),
        ("tensor_split", [1] * 257),
        ("tensor_split", {"0": 1}),
    ],
)
def test_a_json_value_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"^{name} must be"):
        check_parameter(name, value)


def test_an_unknown_option_is_refused_by_name() -> None:
    for name in ("temprature", "x" * 500, *REMOVED):
        with pytest.raises(InvalidRequest, match=r"^unknown parameter "):
            check_parameter(name, 1)


@given(st.sampled_from(sorted(PARAMETERS)), st.integers() | st.floats() | st.text(max_size=9) | st.booleans())
def test_whatever_passes_passes_again_unchanged(name: str, value: object) -> None:
    try:
        checked = check_parameter(name, value)
    except InvalidRequest:
        return
    assert check_parameter(name, checked) == checked

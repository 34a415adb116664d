"""Versions that models ask for."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest, Unsupported
from registry.requirement import check_requirement, parse_version, this_version

ORDERED = [
    "0.0.9",
    "0.1.0-alpha",
    "0.1.0-alpha.1",
    "0.1.0-alpha.beta",
    "0.1.0-beta.2",
    "0.1.0-beta.11",
    "0.1.0",
    "0.2.0",
    "0.10.0",
    "1.0.0",
]


def test_versions_are_ordered_as_semantic_versions_are() -> None:
    parsed = [parse_version(text) for text in ORDERED]
    backwards = list(reversed(parsed))
    assert sorted(backwards) == parsed
    assert [str(one) for one in parsed] == ORDERED
    assert parse_version("v1.2.3+build") == parse_version("1.2.3")


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "one", "1.2.3 ", " v1.2.3x", "1" * 99])
def test_what_is_no_version_is_refused(text: str) -> None:
    if text == "1.2.3 ":
        assert parse_version(text) == parse_version("1.2.3")
        return
    with pytest.raises(InvalidRequest, match="valid semver"):
        parse_version(text)


@given(st.text(max_size=30) | st.from_regex(r"v?\d\.\d\.\d(-[0-9a-z.]+)?", fullmatch=True))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    try:
        parsed = parse_version(text)
    except InvalidRequest:
        return
    assert parse_version(str(parsed)) == parsed


def test_a_model_for_a_later_puna_is_refused_with_both_versions() -> None:
    here = str(this_version())
    assert version("puna").startswith(here)
    check_requirement("")
    check_requirement("0.0.1")
    check_requirement(here)
    with pytest.raises(Unsupported, match=f"requires Puna 99.0.0 or later, and this is {here}") as refused:
        check_requirement("99.0.0")
    assert refused.value.facts == {"requires": "99.0.0", "version": here}

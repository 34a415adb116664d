"""Tests of the error tree."""

from __future__ import annotations

from runner.errors import ReportedError


def test_a_reported_error_takes_any_names_of_facts() -> None:
    facts = {"message": "a", "self": "b", "code": "c"}
    error = ReportedError("model_invalid", "It cannot be read.", facts)
    assert (error.code, error.message, error.facts) == ("model_invalid", "It cannot be read.", facts)
    assert str(error) == "It cannot be read."

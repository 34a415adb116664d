"""No field of an official client is dropped in silence, and the page that says so is true."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compatibility import methods
from tests.compatibility.matrix import Outcome, rendered, rows_of
from tests.compatibility.nested import nested_rows, untried_fields
from tests.compatibility.samples import METHODS, Method

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


@pytest.mark.parametrize("method", METHODS, ids=lambda one: f"{one.client} {one.name}")
def test_every_field_of_the_client_is_tried(method: Method) -> None:
    assert method.samples.keys() == method.fields


def test_every_field_within_a_field_is_tried() -> None:
    assert untried_fields() == []


async def test_no_field_is_dropped_and_the_page_is_true() -> None:
    tables = [(method, await rows_of(method)) for method in METHODS]
    nested = await nested_rows()
    dropped = [(method.name, row) for method, rows in tables + nested for row in rows if row.outcome is Outcome.DROPPED]
    assert not dropped
    page = rendered(tables, nested) + methods.rendered()
    if os.environ.get("PUNA_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "run this test with PUNA_WRITE_DOCS=1 to write the page anew"

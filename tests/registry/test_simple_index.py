"""Index pages: JSON and HTML, and the choice of a wheel."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import SourceError
from registry.sources.simple_index import WheelLink, choose_wheels, read_page

BASE = "https://index.test/simple/tiny-model/"
JSON = "application/vnd.pypi.simple.v1+json"
SHA = "ab" * 32


def test_a_json_page_is_read() -> None:
    document = {
        "files": [
            {"filename": "tiny_model-1.0-py3-none-any.whl", "url": "../../f/a.whl", "hashes": {"sha256": SHA}},
            {"filename": "x.whl", "url": "https://files.test/x.whl", "hashes": {}},
            {"filename": 1, "url": "x"},
            "nonsense",
        ]
    }
    assert read_page(f"{JSON}; charset=utf-8", json.dumps(document).encode(), BASE) == [
        WheelLink("tiny_model-1.0-py3-none-any.whl", "https://index.test/f/a.whl", SHA),
        WheelLink("x.whl", "https://files.test/x.whl", None),
    ]


def test_an_html_page_is_read() -> None:
    page = (
        "<!doctype html><html><head><base href='/base/'></head><body>"
        f"<a href='tiny_model-1.0-py3-none-any.whl#sha256={SHA}'>x</a>"
        f'<A HREF="https://files.test/a%2Bb-1.0.whl?x=1#egg=y&amp;sha256={SHA.upper()}">y</A>'
        "<a name='none'>z</a></body>"
    )
    assert read_page("text/html", page.encode(), BASE) == [
        WheelLink("tiny_model-1.0-py3-none-any.whl", "https://index.test/base/tiny_model-1.0-py3-none-any.whl", SHA),
        WheelLink("a+b-1.0.whl", "https://files.test/a%2Bb-1.0.whl?x=1", SHA),
    ]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [(JSON, b"{"), (JSON, b"[]"), (JSON, b'{"files": 1}'), (JSON, b"[" * 50_000), ("image/png", b"")],
)
def test_what_is_no_index_page_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(SourceError):
        read_page(content_type, body, BASE)


@given(st.binary(max_size=200), st.sampled_from([JSON, "text/html"]))
def test_any_bytes_are_a_page_or_refused(body: bytes, content_type: str) -> None:
    try:
        read_page(content_type, body, BASE)
    except SourceError as error:
        assert error.code == "registry_error"


def test_the_wheel_is_chosen_by_its_version_and_for_any_machine_first() -> None:
    names = [
        "tiny_model-1.0-cp311-cp311-win_amd64.whl",
        "tiny_model-1.0.tar.gz",
        "tiny_model-1.0.1-py3-none-any.whl",
        "tiny_model_extra-1.0-py3-none-any.whl",
        "Tiny.Model-1.0.0-py3-none-any.whl",
        "broken.whl",
    ]
    links = [WheelLink(name, f"https://f.test/{name}", None) for name in names]
    chosen = [link.file_name for link in choose_wheels(links, "Tiny-Model", "1.0")]
    assert chosen == ["Tiny.Model-1.0.0-py3-none-any.whl", "tiny_model-1.0-cp311-cp311-win_amd64.whl"]

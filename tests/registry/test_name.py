"""Model names: parsing, printing, and never a path out of the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import Digest
from registry.errors import InvalidName, InvalidRequest
from registry.name import ModelName

_FIRST = "abcXYZ019_"
PARTS = st.builds(lambda first, rest: first + rest, st.sampled_from(_FIRST), st.text(_FIRST + "-", max_size=10))


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("smollm2", "registry.ollama.ai/library/smollm2:latest", "smollm2:latest"),
        ("smollm2:135m", "registry.ollama.ai/library/smollm2:135m", "smollm2:135m"),
        ("me/Model.v1:Q4", "registry.ollama.ai/me/Model.v1:Q4", "me/Model.v1:Q4"),
        ("hf.co/owner/repo:q8", "hf.co/owner/repo:q8", "hf.co/owner/repo:q8"),
        ("hf.co/own.er/repo-v1.5:q8", "hf.co/own.er/repo-v1.5:q8", "hf.co/own.er/repo-v1.5:q8"),
        (
            "HuggingFace.co/a.b/" + "r" * 96,
            "HuggingFace.co/a.b/" + "r" * 96 + ":latest",
            "HuggingFace.co/a.b/" + "r" * 96 + ":latest",
        ),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
        ("https://host/a/b:c", "host/a/b:c", "host/a/b:c"),
        ("host.example/a/b/c/d:e", "host.example/a/b/c/d:e", "host.example/a/b/c/d:e"),
        ("localhost/a/b/c", "localhost/a/b/c:latest", "localhost/a/b/c:latest"),
        (" spaced ", "registry.ollama.ai/library/spaced:latest", "spaced:latest"),
    ],
)
def test_a_name_is_filled_in_and_shown_short(text: str, full: str, short: str) -> None:
    name = ModelName.parse(text)
    assert (name.full, name.short, str(name)) == (full, short, short)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":tag",
        "model:",
        "/model",
        "a//b",
        "a/b/c/d",
        "registry.ollama.ai/a/b/c",
        "hf.co/a/b/c",
        "host.example/a/../c/d",
        "host.example/a/con/c",
        "host.example/a/b%2Fc/d",
        "host.example/a//c/d",
        "host.example/" + "/".join(["n" * 79] * 3) + "/m",
        "..",
        "../x",
        "a/../b",
        "host/../b",
        ".hidden",
        "-dash",
        "a b",
        "a:b:c",
        "na.me/model",
        "host/na.me/model",
        "hf.co.host/na.me/model",
        "hf.co/../model",
        "hf.co/.me/model",
        "hf.co/me./model",
        "hf.co/me/..",
        "hf.co/me/" + "x" * 97,
        "http://host/a/b",
        "x" * 81,
        "a/b/c:" + "t" * 81,
        "h" * 256 + "/a/b",
        "a\\b",
        "a\0b",
        "modell\u00e9",
        "con",
        "a/b/nul.gguf",
        "trailing.",
        "a:t.",
        "a\n",
        "a/b\n/c",
    ],
)
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    if text == "a\n":
        assert ModelName.parse(text).model == "a"
        return
    with pytest.raises(InvalidName) as refused:
        ModelName.parse(text)
    assert refused.value.code == "invalid_request"


def test_names_that_differ_in_case_fold_to_the_same() -> None:
    assert ModelName.parse("SmolLM2:135M").folded == ModelName.parse("smollm2:135m").folded
    assert ModelName.parse("SmolLM2").model == "SmolLM2"


@given(PARTS, st.lists(PARTS, min_size=1, max_size=4), PARTS, PARTS)
def test_a_printed_name_reads_back_as_itself(host: str, namespaces: list[str], model: str, tag: str) -> None:
    host = host if len(namespaces) == 1 else f"{host}.example"
    try:
        name = ModelName(host, "/".join(namespaces), model, tag)
    except InvalidName:
        return
    assert ModelName.parse(name.short) == name
    assert ModelName.parse(name.full) == name
    assert ModelName.of_path(*name.path.parts) == name


@given(
    st.text(max_size=40) | st.text("./\\:-_~aA0%\0", max_size=20) | st.text("a./%2F", max_size=20).map("h.x/{}".format)
)
def test_no_text_makes_a_path_out_of_the_root(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except InvalidName:
        return
    root = Path("/store/manifests")
    path = root.joinpath(name.path)
    assert path.is_relative_to(root)
    assert len(path.relative_to(root).parts) == 4
    assert all(part not in (".", "..") and "/" not in part and "\\" not in part for part in name.path.parts)


def test_a_digest_has_one_spelling() -> None:
    upper = "AB" * 32
    for text in (f"sha256:{upper}", f"sha256-{upper.lower()}"):
        digest = Digest.parse(text)
        assert str(digest) == f"sha256:{upper.lower()}"
        assert digest.file_name == f"sha256-{upper.lower()}"


@given(st.text(max_size=80) | st.from_regex(r"sha256[:/-][0-9a-f]{63,65}\n?", fullmatch=True))
def test_no_other_text_is_a_digest(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidRequest:
        return
    assert len(digest.hex) == 64
    assert set(digest.hex) <= set("0123456789abcdef")


@pytest.mark.parametrize("text", ["", "x" * 64, "A" * 64, "../" * 20])
def test_a_digest_cannot_be_built_from_something_else(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Digest(text)

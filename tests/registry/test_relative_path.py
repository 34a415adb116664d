"""Paths from outside: possible everywhere, and never out of their folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidName, InvalidRequest
from registry.file_naming import file_stem, name_of_file, name_part
from registry.name import ModelName
from registry.relative_path import RelativePath, why_impossible


@pytest.mark.parametrize("text", ["a", "model-00001-of-00002.safetensors", "a/b c/d.json", "é/日本.txt", ".hidden"])
def test_an_ordinary_path_is_kept(text: str) -> None:
    assert str(RelativePath.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be relative"),
        ("/etc/passwd", "must be relative"),
        ("a//b", "must be relative"),
        ("a/../b", "must be relative"),
        ("./a", "must be relative"),
        ("a/", "must be relative"),
        ("..\\x", "the character"),
        ("c:x", "the character ':'"),
        ("a\0b", "the character '\\x00'"),
        ("x" * 201, "more than 200 bytes"),
        ("é" * 101, "more than 200 bytes"),
        ("/".join("a" * 17), "more than 16 parts"),
        ("a/nul.txt", "device"),
        ("COM1", "device"),
        ("lpt\u00b9.x", "device"),
        ("con .x", "device"),
        ("a. ", "ends with"),
        ("a.", "ends with"),
        ("\ud800", "the character"),
    ],
)
def test_an_impossible_path_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RelativePath.parse(text)
    assert said in refused.value.message


@given(st.text(max_size=60) | st.text("./\\:aA ~\0cnul1", max_size=20))
def test_no_text_leads_out_of_a_folder_on_any_system(text: str) -> None:
    try:
        path = RelativePath.parse(text)
    except InvalidRequest:
        return
    for root in (PurePosixPath("/root/folder"), PureWindowsPath("C:/root/folder")):
        joined = root.joinpath(*path.parts)
        assert joined.is_relative_to(root)
        assert joined.parts[len(root.parts) :] == path.parts


@given(st.text(max_size=120), st.text(max_size=120))
def test_every_file_name_gives_a_possible_model_name(file_name: str, before: str) -> None:
    name = name_of_file(file_name, before=before)
    assert ModelName.parse(name.full) == name
    assert why_impossible(file_stem(name)) is None
    assert name_part(name.model) == name.model


@given(st.text("abcABC019_-.:/", max_size=40))
def test_a_model_name_is_a_path_of_possible_parts_on_every_system(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except InvalidName:
        return
    for part in (name.host.replace(":", "%3A"), *name.path.parts[1:]):
        assert why_impossible(part) is None
    root = PureWindowsPath("C:/models/manifests")
    assert root.joinpath(name.host.replace(":", "%3A"), *name.path.parts[1:]).is_relative_to(root)


def test_paths_that_differ_in_case_fold_to_the_same() -> None:
    assert RelativePath.parse("A/Straße").folded == RelativePath.parse("a/STRASSE").folded
    assert Path(*RelativePath.parse("a/b").parts) == Path("a/b")

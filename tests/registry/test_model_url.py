"""Addresses of model files: told apart from names, and the names that are made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidName, InvalidRequest, RegistryError
from registry.file_naming import name_of_file
from registry.finder import Target, source_text
from registry.name import ModelName
from registry.sources.model_url import ModelUrl, parse_model_url


@pytest.mark.parametrize(
    "text",
    ["smollm2", "hf.co/owner/repo:m-Q4_0.gguf", "https://registry.example.com/ns/model:tag", "https://x/y/z.gguf:latest",
     "m.gguf", "C:\\m.gguf", "https://example.com/page.html"],
)  # fmt: skip
def test_names_and_other_texts_are_no_addresses_of_files(text: str) -> None:
    assert parse_model_url(text) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://example.com/a/b.gguf", "https://example.com/a/b.gguf"),
        (" HTTPS://example.com/b.GGUF ", "https://example.com/b.GGUF"),
        ("https://example.com/b.gguf?download=true#top", "https://example.com/b.gguf?download=true"),
        ("http://localhost:8000/b.gguf", "http://localhost:8000/b.gguf"),
        ("https://huggingface.co/o/r/resolve/dev/b.gguf", "https://huggingface.co/o/r/resolve/dev/b.gguf"),
    ],
)
def test_an_address_of_a_file_is_kept_as_it_is(text: str, url: str) -> None:
    found = parse_model_url(text)
    assert isinstance(found, ModelUrl) and found.url == url


@pytest.mark.parametrize("kind", ["blob", "resolve"])
@pytest.mark.parametrize("host", ["huggingface.co", "hf.co"])
def test_a_file_on_the_hubs_pages_is_a_model_of_the_hub(kind: str, host: str) -> None:
    found = parse_model_url(f"https://{host}/owner/repo/{kind}/main/m-Q4_0.gguf?download=true")
    assert found == ModelName.parse("hf.co/owner/repo:m-Q4_0.gguf")


@pytest.mark.parametrize(
    "text",
    ["ftp://example.com/b.gguf", "file:///etc/b.gguf", "https:///b.gguf", "https://me:secret@example.com/b.gguf",
     "https://[::1/b.gguf", "https://example.com:port/b.gguf"],
)  # fmt: skip
def test_addresses_that_cannot_be_fetched_are_refused_without_their_login(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_model_url(text)
    assert "secret" not in caught.value.message


def test_what_is_shown_of_an_address_has_no_query() -> None:
    assert ModelUrl("https://example.com/b.gguf?signature=secret").shown == "https://example.com/b.gguf"


def test_the_address_of_a_shard_means_all_of_them() -> None:
    url = ModelUrl("https://example.com/m%20x-Q4_0-00002-of-00003.gguf?a=b")
    assert url.files == tuple(f"https://example.com/m%20x-Q4_0-0000{number}-of-00003.gguf?a=b" for number in (1, 2, 3))
    assert url.suggested_name == ModelName.parse("m-x:Q4_0")
    assert ModelUrl("https://example.com/m.gguf").files == ("https://example.com/m.gguf",)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct:Q4_1"),
        ("gemma-3-270m-q4_k_m.gguf", "gemma-3-270m:Q4_K_M"),
        ("qwen2.5-0.5b-instruct-fp16.gguf", "qwen2.5-0.5b-instruct:F16"),
        ("Q8_0.gguf", "model:Q8_0"),
        ("Q4_0-mine.gguf", "mine:Q4_0"),
        ("m-UD-Q2_K_XL-00001-of-00002.gguf", "m:UD-Q2_K_XL"),
        ("Mein Modell ä.gguf", "mein-modell-a:latest"),
        ("....gguf", "model:latest"),
        ("con.gguf", "model-con:latest"),
    ],
)
def test_a_files_name_makes_a_name_for_its_model(file: str, name: str) -> None:
    assert name_of_file(file).short == name


@given(st.text(max_size=120))
def test_every_files_name_makes_a_possible_name(file: str) -> None:
    name = name_of_file(file)
    assert ModelName.parse(name.full) == name


@given(st.text(max_size=60), st.none() | st.text(max_size=20))
def test_no_text_is_too_odd_to_be_pulled_or_refused(text: str, given_name: str | None) -> None:
    for one in (text, f"https://{text}", f"https://example.com/{text}.gguf"):
        try:
            target = Target.parse(one, given_name)
        except RegistryError:
            continue
        again = Target.parse(source_text(target.source), target.name.full)
        assert again == target


def test_a_given_name_is_used_for_names_and_addresses() -> None:
    target = Target.parse("https://example.com/m.gguf", "mine:1")
    assert (target.name.short, target.named_source) == ("mine:1", ModelUrl("https://example.com/m.gguf"))
    assert Target.parse("smollm2", "SmolLM2:latest").named_source is None
    assert Target.parse("smollm2", "mine").named_source == ModelName.parse("smollm2")
    with pytest.raises(InvalidName):
        Target.parse("smollm2", "../up")

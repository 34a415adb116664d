"""Which files of a repository are taken for a tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.sources import quantization
from registry.sources.gguf_choice import (
    ListedFile,
    choose,
    choose_projector,
    is_projector,
    shard_name,
    shard_of,
    variants,
)


def listed(*paths: str) -> list[ListedFile]:
    return [ListedFile(path, 100) for path in paths]


def chosen(tag: str | None, *paths: str) -> list[str]:
    """The files of the variant that a tag means; empty when it means none."""
    found = choose(variants(listed(*paths)), tag)
    return [file.path for file in found[0].files] if found else []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("gemma-3-270m-q4_k_m.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-fp16.gguf", "F16"),
        ("Qwen3-4B-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Phi-3-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("model-IQ4_NL-00001-of-00002.gguf", "IQ4_NL"),
        ("model-BF16.gguf", "BF16"),
        ("model-Q6_K.gguf", "Q6_K"),
        ("bitnet-TQ1_0.gguf", "TQ1_0"),
        ("from-F16-to-Q8_0.gguf", "Q8_0"),
        ("ggml-model-f32.gguf", "F32"),
        ("Q-and-A-7B.gguf", None),
        ("model.gguf", None),
        ("XQ4_0Y.gguf", None),
    ],
)
def test_a_file_name_tells_its_quantization(name: str, expected: str | None) -> None:
    assert quantization.find(name) == expected


def test_without_a_tag_the_default_is_taken_and_else_what_is_nearest_to_it() -> None:
    every = [f"m-{name}.gguf" for name in ("F16", "Q2_K", "Q4_0", "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0")]
    taken = []
    while every:
        [path] = chosen(None, *every)
        taken.append(path)
        every.remove(path)
    assert taken == [f"m-{name}.gguf" for name in ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0", "F16", "Q2_K")]


def test_every_known_quantization_has_its_place_and_its_bits() -> None:
    assert len(set(quantization.PREFERENCE)) == len(quantization.PREFERENCE)
    assert set(quantization.PREFERENCE) == set(quantization.BITS)
    for name in quantization.PREFERENCE:
        assert quantization.find(f"some-7B-{name}.gguf") == name


@pytest.mark.parametrize("tag", ["Q5_K_M", "q5_k_m", "M-Q5_K_M.gguf", "m-q5_k_m"])
def test_a_tag_is_a_quantization_or_a_file_name_in_any_case(tag: str) -> None:
    assert chosen(tag, "m-Q4_K_M.gguf", "m-Q5_K_M.gguf") == ["m-Q5_K_M.gguf"]


def test_a_tuned_mixture_is_taken_by_its_plain_name_only_when_there_is_no_plain_one() -> None:
    both = ("m-UD-Q4_K_XL.gguf", "m-Q4_K_XL.gguf")
    assert chosen("Q4_K_XL", *both) == ["m-Q4_K_XL.gguf"]
    assert chosen("UD-Q4_K_XL", *both) == ["m-UD-Q4_K_XL.gguf"]
    assert chosen("q4_k_xl", "m-UD-Q4_K_XL.gguf") == ["m-UD-Q4_K_XL.gguf"]


def test_a_quantization_that_is_not_there_means_nothing() -> None:
    assert chosen("Q3_K_S", "m-Q4_K_M.gguf") == []
    assert chosen("Q4", "m-Q4_K_M.gguf") == []


def test_shards_are_one_model_in_their_order() -> None:
    paths = [f"Q8_0/m-Q8_0-0000{number}-of-00003.gguf" for number in (3, 1, 2)]
    assert chosen("Q8_0", "m-Q4_0.gguf", *paths) == sorted(paths)
    assert chosen("m-q8_0", *paths) == sorted(paths)
    assert chosen("m-Q8_0-00002-of-00003.gguf", *paths) == sorted(paths)


def test_a_model_with_a_missing_shard_says_so_and_is_taken_last() -> None:
    found = variants(listed("m-Q4_K_M-00001-of-00002.gguf", "m-Q2_K.gguf"))
    assert [(variant.label, variant.missing) for variant in found] == [("Q2_K", 0), ("Q4_K_M", 1)]


def test_the_folder_tells_the_quantization_when_the_file_does_not() -> None:
    assert chosen("Q8_0", "Q8_0/model.gguf", "Q4_0/model.gguf") == ["Q8_0/model.gguf"]


def test_files_that_are_no_models_are_left_out() -> None:
    others = ["mmproj-F16.gguf", "m.imatrix.gguf", "imatrix.gguf", "README.md", "m-Q4_0.gguf.part"]
    assert chosen(None, *others) == []
    assert chosen(None, *others, "m-imatrix-Q4_0.gguf") == ["m-imatrix-Q4_0.gguf"]


def test_among_several_of_one_quantization_the_plainest_comes_first() -> None:
    found = choose(variants(listed("old/m-Q4_K_M.gguf", "m-Q4_K_M-long.gguf", "m-Q4_K_M.gguf")), None)
    assert [variant.files[0].path for variant in found] == ["m-Q4_K_M.gguf", "m-Q4_K_M-long.gguf", "old/m-Q4_K_M.gguf"]


def test_a_projector_is_taken_in_half_precision_and_from_the_models_own_folder() -> None:
    files = listed("mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-model-f16.gguf", "small/mmproj-Q8_0.gguf")
    taken = choose_projector(files, ListedFile("m-Q4_0.gguf", 1))
    assert taken is not None and taken.path == "mmproj-model-f16.gguf"
    taken = choose_projector(files, ListedFile("small/m-Q4_0.gguf", 1))
    assert taken is not None and taken.path == "small/mmproj-Q8_0.gguf"
    assert choose_projector(listed("m.gguf"), ListedFile("m.gguf", 1)) is None
    assert is_projector(ListedFile("m.mmproj-Q8_0.gguf", 1))


@pytest.mark.parametrize(
    "name", ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-00001-of-99999.gguf", "m-1-of-2.gguf"]
)
def test_impossible_shards_are_files_of_their_own(name: str) -> None:
    assert shard_of(name) is None
    assert len(variants(listed(name))) == 1


@given(st.integers(1, 1000), st.integers(1, 1000), st.text("ab-./", min_size=1, max_size=20))
def test_the_names_of_shards_are_read_as_they_are_written(number: int, count: int, prefix: str) -> None:
    if number <= count:
        assert shard_of(shard_name(prefix, number, count)) == (prefix, number, count)


@given(st.lists(st.text(max_size=40), max_size=20), st.text(max_size=20))
def test_no_listing_and_no_tag_is_too_odd(paths: list[str], tag: str) -> None:
    files = listed(*paths)
    found = variants(files)
    for variant in choose(found, tag):
        assert all(file in files for file in variant.files)

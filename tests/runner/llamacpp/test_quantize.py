"""Quantizing: every type llama.cpp knows gives a model that loads and computes, or a clear refusal."""

from __future__ import annotations

import ctypes
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib

from registry.errors import InvalidRequest
from registry.file_types import QUANTIZABLE_TO, check_has_matrix, check_quantizable_to, file_type_number
from registry.gguf_metadata import read_gguf
from registry.importance_matrix import read_importance_matrix
from runner.errors import DiskFull, ModelInvalid
from runner.errors import InvalidRequest as NotQuantized
from runner.jobs import Quantize
from runner.llamacpp.library import Library
from runner.llamacpp.quantize import quantize
from runner.supervisor.workshop import importance_of
from tests.importance import random_matrix, write_matrix, write_plain_matrix
from tests.tiny_model import write_tiny_model

NEED_MATRIX = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}
ROOM = 1 << 40


@pytest.fixture(scope="module")
def full_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("full") / "full.gguf", width=256)


@pytest.fixture(scope="module")
def matrix(full_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_matrix(tmp_path_factory.mktemp("matrix") / "m.gguf", random_matrix(full_model))


def job(source: Path, target: Path, file_type: int, room: int = ROOM, matrix: Path | None = None) -> Quantize:
    importance = importance_of(read_importance_matrix(matrix)) if matrix else None
    return Quantize((str(source),), str(target), file_type, room, importance)


def file_types_of_the_library() -> dict[str, int]:
    pattern = re.compile(r"LLAMA_FTYPE_(?:ALL|MOSTLY)_(\w+)")
    return {match[1]: getattr(lib, name) for name in dir(lib) if (match := pattern.fullmatch(name))}


def logits(path: Path) -> np.ndarray[Any, Any]:
    """Of the token after a short text."""
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    assert model
    params = lib.llama_context_default_params()
    params.n_ctx = 64
    params.n_threads = params.n_threads_batch = 1
    context = lib.llama_init_from_model(model, params)
    try:
        tokens = (ctypes.c_int32 * 4)(1, 2, 3, 4)
        assert lib.llama_decode(context, lib.llama_batch_get_one(tokens, 4)) == 0
        size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        return np.ctypeslib.as_array(lib.llama_get_logits(context), (size,)).copy()
    finally:
        lib.llama_free(context)
        lib.llama_model_free(model)


@pytest.mark.parametrize("file_type", QUANTIZABLE_TO)
def test_a_model_of_every_type_loads_and_gives_finite_logits(
    library: Library, full_model: Path, matrix: Path, tmp_path: Path, file_type: str
) -> None:
    target = tmp_path / "out.gguf"
    told: list[float] = []
    given = matrix if file_type in NEED_MATRIX else None
    done = quantize(job(full_model, target, file_type_number(file_type), matrix=given), library, told.append)
    assert done.size == target.stat().st_size
    assert told == sorted(told) and told[-1] == pytest.approx(1, abs=0.02)
    assert read_gguf(target).file_type_name == file_type
    assert np.isfinite(logits(target)).all()


def test_all_types_of_the_library_are_known_here() -> None:
    ours = {name: file_type_number(name) for name in QUANTIZABLE_TO}
    # NVFP4 is read and not written by the library.
    theirs = {name: number for name, number in file_types_of_the_library().items() if name != "NVFP4"}
    theirs_by_ours = {name: number for name, number in theirs.items() if name in ours}
    assert ours | theirs_by_ours == ours
    # Types added to the library after its Python constants were written have no constant there.
    assert set(theirs) <= set(ours)
    assert set(ours) - set(theirs) <= {"MXFP4_MOE", "Q1_0", "Q2_0"}


@pytest.mark.parametrize("file_type", sorted(NEED_MATRIX))
def test_types_that_need_an_importance_matrix_are_refused_without_one_before_and_by_the_library(
    library: Library, full_model: Path, tmp_path: Path, file_type: str
) -> None:
    with pytest.raises(InvalidRequest, match="needs an importance matrix: give one with --imatrix"):
        check_has_matrix(file_type)
    target = tmp_path / "out.gguf"
    with pytest.raises(NotQuantized, match="needs an importance matrix"):
        quantize(job(full_model, target, file_type_number(file_type)), library, lambda _: None)
    assert not target.exists()


def test_no_other_type_needs_one() -> None:
    for file_type in set(QUANTIZABLE_TO) - NEED_MATRIX:
        check_has_matrix(file_type)


def test_both_formats_of_a_matrix_give_the_same_file_and_no_matrix_another(
    library: Library, full_model: Path, matrix: Path, tmp_path: Path
) -> None:
    plain = write_plain_matrix(tmp_path / "m.dat", random_matrix(full_model))
    made = []
    for number, given in enumerate((matrix, plain, None)):
        target = tmp_path / f"{number}.gguf"
        quantize(job(full_model, target, file_type_number("Q4_K_M"), matrix=given), library, lambda _: None)
        made.append(target.read_bytes())
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("file_type", "tensor"), [("IQ2_XXS", "blk.1.ffn_gate.weight"), ("Q2_K_S", "blk.0.attn_q.weight")]
)
def test_a_matrix_that_lacks_a_tensor_is_refused_before_anything_is_written(
    library: Library, full_model: Path, tmp_path: Path, file_type: str, tensor: str
) -> None:
    values = random_matrix(full_model)
    del values[tensor]
    lacking = write_matrix(tmp_path / "m.gguf", values)
    target = tmp_path / "out.gguf"
    with pytest.raises(NotQuantized, match=f"nothing about {tensor}"):
        quantize(job(full_model, target, file_type_number(file_type), matrix=lacking), library, lambda _: None)
    assert not target.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_values_that_are_no_means_of_squares_are_refused(
    library: Library, full_model: Path, tmp_path: Path, value: float
) -> None:
    values = random_matrix(full_model)
    values["blk.0.attn_q.weight"][3] = value
    odd = write_matrix(tmp_path / "m.gguf", values)
    with pytest.raises(ModelInvalid, match=r"blk\.0\.attn_q\.weight that are no means of squares"):
        quantize(job(full_model, tmp_path / "out.gguf", file_type_number("IQ2_S"), matrix=odd), library, lambda _: None)


@pytest.mark.parametrize(("text", "name"), [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), (" q8_0 ", "Q8_0")])
def test_types_are_named_in_any_case_and_by_their_short_names(text: str, name: str) -> None:
    assert check_quantizable_to(text) == name


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match="unsupported quantization type Q9 - supported types are F32, F16"):
        check_quantizable_to("Q9")


def test_what_will_not_fit_is_refused_before_anything_is_written(
    library: Library, full_model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.gguf"
    with pytest.raises(DiskFull, match="room for 0 MB"):
        quantize(job(full_model, target, file_type_number("Q8_0"), room=1000), library, lambda _: None)
    assert not target.exists()


def test_what_llama_cpp_refuses_is_told_in_its_words(library: Library, full_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(full_model.read_bytes().replace(b"llama", b"lambo"))
    with pytest.raises(ModelInvalid, match=r"cannot quantize the model: .*lambo"):
        quantize(job(broken, tmp_path / "out.gguf", file_type_number("Q8_0")), library, lambda _: None)

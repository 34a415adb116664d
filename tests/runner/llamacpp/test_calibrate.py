"""Importance matrices computed from a text: the numbers are those of the model's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from registry.file_types import file_type_number
from registry.gguf_metadata import read_gguf
from registry.importance_matrix import check_importance, read_importance_matrix
from runner.errors import InvalidRequest
from runner.jobs import Calibrate, Quantize
from runner.llamacpp.calibrate import calibrate, inputs_of
from runner.llamacpp.importance import read_importance
from runner.llamacpp.library import Library
from runner.llamacpp.quantize import quantize
from runner.supervisor.workshop import importance_of
from tests.tiny_encoders import write_tiny_bert
from tests.tiny_mixture import EXPERTS, USED, write_tiny_mixture
from tests.tiny_model import BEGIN, write_tiny_model

TEXT = "the quick brown fox jumps over the lazy dog. " * 20


def job(tmp_path: Path, model: Path, text: str = TEXT) -> Calibrate:
    (tmp_path / "text").write_text(text, encoding="utf-8")
    return Calibrate((str(model),), str(tmp_path / "text"), str(tmp_path / "matrix.gguf"))


def means(path: Path) -> dict[str, np.ndarray]:
    return read_importance(importance_of(read_importance_matrix(path)))


def test_the_inputs_of_the_first_layer_are_squared_and_averaged(library: Library, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.gguf")
    told: list[float] = []
    done = calibrate(job(tmp_path, model), library, told.append)
    # 900 tokens: one whole chunk and a rest, each with a begin token in front.
    assert done.tokens == len(TEXT) + 2 and told == [0.5, 1.0]
    tensors = {one.name: one.data for one in gguf.GGUFReader(model).tensors}
    tokens = [BEGIN, *TEXT.encode()[:511], BEGIN, *TEXT.encode()[511:]]
    rows = tensors["token_embd.weight"].astype(np.float64)[tokens]
    normed = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-5)
    found = means(tmp_path / "matrix.gguf")
    np.testing.assert_allclose(found["blk.0.attn_q.weight"], np.mean(normed**2, axis=0), rtol=1e-3)
    assert np.array_equal(found["blk.0.attn_q.weight"], found["blk.0.attn_v.weight"])


def test_every_weight_of_every_block_is_covered_by_all_tokens(library: Library, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.gguf")
    done = calibrate(job(tmp_path, model), library, lambda _: None)
    matrix = gguf.GGUFReader(tmp_path / "matrix.gguf")
    counts = {one.name.removesuffix(".counts"): one.data for one in matrix.tensors if one.name.endswith(".counts")}
    weights = {one.name for one in read_gguf(model).tensors if one.name.startswith("blk.") and len(one.shape) > 1}
    assert set(counts) == weights
    assert {float(one.item()) for one in counts.values()} == {done.tokens}


def test_a_model_is_quantized_with_the_matrix_computed_for_it(library: Library, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.gguf", width=256)
    calibrate(job(tmp_path, model), library, lambda _: None)
    matrix = read_importance_matrix(tmp_path / "matrix.gguf")
    check_importance(matrix, read_gguf(model).tensors)
    number = file_type_number("IQ2_XXS")
    target = tmp_path / "out.gguf"
    quantize(Quantize((str(model),), str(target), number, 1 << 40, importance_of(matrix)), library, lambda _: None)
    assert read_gguf(target).file_type_name == "IQ2_XXS"


def test_experts_are_told_apart(library: Library, tmp_path: Path) -> None:
    model = write_tiny_mixture(tmp_path / "m.gguf")
    done = calibrate(job(tmp_path, model), library, lambda _: None)
    matrix = {one.name: one.data for one in gguf.GGUFReader(tmp_path / "matrix.gguf").tensors}
    for part in ("gate", "up", "down"):
        counts = matrix[f"blk.0.ffn_{part}_exps.weight.counts"]
        assert counts.size == EXPERTS and counts.sum() == done.tokens * USED
    check_importance(read_importance_matrix(tmp_path / "matrix.gguf"), read_gguf(model).tensors)


def test_a_text_is_read_in_pieces_that_the_model_has_positions_for(library: Library, tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "m.gguf", context_length=64)
    calibrate(job(tmp_path, model, "hello world " * 60), library, lambda _: None)
    check_importance(read_importance_matrix(tmp_path / "matrix.gguf"), read_gguf(model).tensors)


def test_rows_go_to_the_experts_that_were_chosen_for_them() -> None:
    # Two tokens, two experts of three for each; one input for both experts of a token.
    squares = np.arange(1, 5, dtype=np.float64).reshape(1, 2, 1, 2)
    chosen = np.array([[0, 2], [2, 1]], dtype=np.int32)
    found = {matrix: rows.tolist() for matrix, rows in inputs_of(squares, chosen, 3, 1)}
    assert found == {0: [[1, 2]], 1: [[3, 4]], 2: [[1, 2], [3, 4]]}


@pytest.mark.parametrize(("text", "complaint"), [("too short", "has 9 tokens"), ("", "has 0 tokens")])
def test_a_text_that_is_too_short_is_refused(library: Library, tmp_path: Path, text: str, complaint: str) -> None:
    model = write_tiny_model(tmp_path / "m.gguf")
    with pytest.raises(InvalidRequest, match=complaint):
        calibrate(job(tmp_path, model, text), library, lambda _: None)


def test_what_is_no_text_is_refused(library: Library, tmp_path: Path) -> None:
    asked = job(tmp_path, write_tiny_model(tmp_path / "m.gguf"))
    Path(asked.text).write_bytes(b"\xff\xfe" * 100)
    with pytest.raises(InvalidRequest, match="not text in UTF-8"):
        calibrate(asked, library, lambda _: None)

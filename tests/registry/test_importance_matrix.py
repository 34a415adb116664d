"""Importance matrices: both formats are read, and no count in them is believed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest, ModelInvalid
from registry.gguf_header import TensorInfo
from registry.importance_matrix import check_importance, read_importance_matrix
from tests.importance import CALLS, write_matrix, write_plain_matrix
from tests.tiny_model import write_tiny_model

VALUES = {
    "blk.0.attn_q.weight": np.arange(1, 5, dtype=np.float32),
    "blk.0.ffn_up_exps.weight": np.arange(1, 9, dtype=np.float32).reshape(2, 4),
}
NAME = b"blk.0.attn_q.weight"


def entry(name: bytes = NAME, *, length: int | None = None, calls: int = 1, values: int = 1) -> bytes:
    told = len(name) if length is None else length
    return struct.pack("<i", told) + name + struct.pack("<ii", calls, values) + b"\0" * 4 * max(0, min(values, 64))


def test_the_places_of_the_sums_and_counts_are_found_in_gguf(tmp_path: Path) -> None:
    path = write_matrix(tmp_path / "m.gguf", VALUES)
    content = path.read_bytes()
    for name, one in read_importance_matrix(path).tensors.items():
        assert one.counts_offset is not None and one.values == VALUES[name].size
        sums = np.frombuffer(content, "<f4", one.values, one.offset)
        counts = np.frombuffer(content, "<f4", one.matrices, one.counts_offset)
        assert np.array_equal(sums, VALUES[name].reshape(-1) * CALLS)
        assert np.array_equal(counts, [CALLS] * one.matrices)


def test_the_places_of_the_sums_are_found_in_the_older_format(tmp_path: Path) -> None:
    path = write_plain_matrix(tmp_path / "m.dat", VALUES)
    content = path.read_bytes()
    for name, one in read_importance_matrix(path).tensors.items():
        assert (one.counts_offset, one.calls, one.matrices) == (None, CALLS, 1)
        assert np.array_equal(np.frombuffer(content, "<f4", one.values, one.offset), VALUES[name].reshape(-1) * CALLS)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "ends at byte 0"),
        (b"some text that is no matrix", "no importance matrix"),
        (struct.pack("<i", 0), "the number of entries is 0"),
        (struct.pack("<i", -1), "the number of entries is"),
        (struct.pack("<i", 60000) + entry(), "no importance matrix"),
        (struct.pack("<i", 1) + entry(length=0), "the length of the name"),
        (struct.pack("<i", 1) + entry(length=128), "the length of the name"),
        (struct.pack("<i", 1) + entry(b"\xff\xff"), "not UTF-8"),
        (struct.pack("<i", 1) + entry(values=0), "the length of entry 0"),
        (struct.pack("<i", 1) + entry(values=1 << 30), "inside entry 0"),
        (struct.pack("<i", 1) + entry(calls=-3), "the calls of entry 0"),
        (struct.pack("<i", 2) + entry() + entry(), "twice"),
        (struct.pack("<i", 2) + entry(), "ends at byte"),
    ],
)
def test_what_is_no_matrix_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(content)
    with pytest.raises(ModelInvalid, match=complaint):
        read_importance_matrix(path)


def test_other_gguf_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="no importance matrix"):
        read_importance_matrix(write_tiny_model(tmp_path / "m.gguf"))
    with pytest.raises(ModelInvalid, match="no importance matrix"):
        read_importance_matrix(write_matrix(tmp_path / "o.gguf", VALUES, kind="other"))
    with pytest.raises(ModelInvalid, match="not a regular file"):
        read_importance_matrix(tmp_path)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_damaged_files_are_refused_or_every_place_is_inside(
    tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    for path in (write_matrix(folder / "m.gguf", VALUES), write_plain_matrix(folder / "m.dat", VALUES)):
        content = bytearray(path.read_bytes())
        content[at : at + len(damage)] = damage
        path.write_bytes(content)
        try:
            found = read_importance_matrix(path)
        except ModelInvalid:
            continue
        for one in found.tensors.values():
            assert one.offset + 4 * one.values <= len(content)
            assert one.counts_offset is None or one.counts_offset + 4 * one.matrices <= len(content)


def tensor(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, "F32", shape, 0, 0)


def test_a_matrix_for_another_model_is_refused(tmp_path: Path) -> None:
    matrix = read_importance_matrix(write_matrix(tmp_path / "m.gguf", VALUES))
    check_importance(matrix, [tensor("blk.0.attn_q.weight", 4, 9), tensor("blk.0.ffn_up_exps.weight", 4, 9, 2)])
    with pytest.raises(InvalidRequest, match=r"4 values for blk\.0\.attn_q\.weight, which has 8 columns"):
        check_importance(matrix, [tensor("blk.0.attn_q.weight", 8, 9)])
    with pytest.raises(InvalidRequest, match=r"8 values for blk\.0\.ffn_up_exps\.weight, which has 12"):
        check_importance(matrix, [tensor("blk.0.ffn_up_exps.weight", 4, 9, 3)])
    with pytest.raises(InvalidRequest, match="names no tensor of this model"):
        check_importance(matrix, [tensor("blk.0.attn_k.weight", 4, 9)])

"""Timing a model with several numbers of threads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ModelInvalid
from runner.jobs import Benchmark
from runner.llamacpp.benchmark import benchmark, thread_counts
from runner.llamacpp.library import Library
from tests.tiny_model import write_tiny_model


@pytest.mark.parametrize(
    ("usable", "physical", "tried"),
    [(1, 1, (1,)), (2, 2, (1, 2)), (2, 1, (1, 2)), (8, 4, (1, 2, 3, 4, 8)), (4, 16, (1, 2, 3, 4))],
)
def test_the_numbers_of_threads_worth_trying(usable: int, physical: int, tried: tuple[int, ...]) -> None:
    assert thread_counts(usable, physical) == tried


@given(st.integers(1, 512), st.integers(1, 512))
def test_no_more_threads_are_tried_than_can_be_used(usable: int, physical: int) -> None:
    tried = thread_counts(usable, physical)
    assert tried[0] == 1 and tried[-1] == usable and len(tried) <= 5


def test_a_model_is_timed_with_every_number_of_threads(tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "tiny.gguf")
    told: list[float] = []
    measured = benchmark(Benchmark((str(file),), seconds=0.2), Library(), told.append)
    counts = [speed.threads for speed in measured.speeds]
    assert counts == sorted(set(counts)) and counts[0] == 1
    assert all(speed.prefill > 0 and speed.decode > 0 for speed in measured.speeds)
    assert told == sorted(told) and told[-1] == 1.0
    assert "llama.cpp" in measured.engine and measured.features


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"GGUF no")
    with pytest.raises(ModelInvalid):
        benchmark(Benchmark((str(file),), seconds=0.1), Library(), lambda _: None)

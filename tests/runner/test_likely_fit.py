"""Whether a model would run here, reckoned from its size alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.supervisor.likely_fit import LikelyFit, likely_fit
from runner.supervisor.likely_speed import memory_speed, most_tokens_per_second
from runner.supervisor.memory import Gpus

GB = 10**9
ORDER = [LikelyFit.GPU, LikelyFit.MEMORY, LikelyFit.TIGHT, LikelyFit.NO]


class Machine:
    def __init__(self, total: int) -> None:
        self._total = total

    def total(self) -> int:
        return self._total

    def available(self) -> int:
        return 0

    def free_swap(self) -> int:
        return 0

    def may_have_gpu_memory(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("size", "gpu", "fit"),
    [
        (4 * GB, 0, LikelyFit.MEMORY),
        (4 * GB, 8 * GB, LikelyFit.GPU),
        (12 * GB, 8 * GB, LikelyFit.MEMORY),
        (14 * GB, 0, LikelyFit.TIGHT),
        (16 * GB, 0, LikelyFit.NO),
        (16 * GB, 8 * GB, LikelyFit.TIGHT),
        (100 * GB, 8 * GB, LikelyFit.NO),
    ],
)
def test_a_machine_of_16_gigabytes(size: int, gpu: int, fit: LikelyFit) -> None:
    assert likely_fit(size, Machine(16 * GB), Gpus(known=True, memory=gpu)) is fit


@given(st.integers(1, 500 * GB), st.integers(0, 100 * GB))
def test_a_larger_model_never_fits_better(size: int, more: int) -> None:
    machine, gpus = Machine(32 * GB), Gpus(known=True, memory=12 * GB)
    assert ORDER.index(likely_fit(size, machine, gpus)) <= ORDER.index(likely_fit(size + more, machine, gpus))


def test_answers_come_no_faster_than_memory_is_read() -> None:
    assert most_tokens_per_second(4 * GB, 40e9) == 10
    assert 1e8 < memory_speed() < 1e13

"""The ways to load a model do in llama.cpp what they say, as far as one CPU can show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from runner.engine import Chunk, SamplerPlan
from runner.errors import InvalidRequest, Unsupported
from runner.llamacpp.devices import experts_on_cpu
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.tiny_model import BEGIN, write_tiny_model

PROMPT = [BEGIN, *b"how a model is loaded"]
TOLERANCE = 0.05
"""Of logits between -15 and 15: attention is summed up in another order, with a cache in f16."""

Open = Callable[..., LlamaEngine]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its heads are wide enough for blocks of 32."""
    return write_tiny_model(tmp_path_factory.mktemp("wide") / "wide.gguf", width=256)


@pytest.fixture
def opened(library: Library, wide: Path) -> Iterator[Open]:
    engines: list[LlamaEngine] = []

    def open_engine(path: Path = wide, **options: Any) -> LlamaEngine:
        engines.append(
            LlamaEngine(
                library, path, LoadOptions(**{"context_length": 512, "max_sequences": 2, "num_thread": 1, **options})
            )
        )
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def logits(engine: LlamaEngine) -> np.ndarray[Any, Any]:
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), PROMPT)
    engine.step([Chunk(0, 0, PROMPT, sampler)])
    sampler.close()
    pointer = llama_cpp.llama_get_logits_ith(engine._model.context, len(PROMPT) - 1)
    return np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy()


@pytest.mark.parametrize(
    "options",
    [
        {"flash_attention": "off"},
        {"flash_attention": "on"},
        {"use_mmap": False},
        {"use_mmap": True},
        {"use_mlock": True},
        {"use_mlock": True, "use_mmap": False},
        {"num_cpu_moe": 2},
        {"split_mode": "none"},
        {"split_mode": "layer", "tensor_split": (1.0,)},
        {"kv_cache_type": "f16"},
        {"rope_scaling": "none"},
    ],
    ids=str,
)
def test_these_ways_change_nothing_in_the_answer(opened: Open, options: dict[str, Any]) -> None:
    plain, other = opened(), opened(**options)
    assert np.abs(logits(plain) - logits(other)).max() < TOLERANCE
    assert other.info.options is not None
    assert all(getattr(other.info.options, name) == value for name, value in options.items())


@pytest.mark.parametrize(("kind", "share"), [("q8_0", 34 / 64), ("q4_0", 18 / 64)])
def test_a_quantized_cache_is_as_small_as_it_should_be_and_nearly_as_good(
    opened: Open, kind: str, share: float
) -> None:
    plain, small = opened(), opened(kv_cache_type=kind)
    first, second = logits(plain), logits(small)
    assert float(first @ second / np.linalg.norm(first) / np.linalg.norm(second)) > 0.9
    large, little = (len(engine.save(0, 0, len(PROMPT))) for engine in (plain, small))
    assert little < large * (share + 0.1)


def test_states_of_other_cache_types_are_not_taken_for_ones_own(opened: Open) -> None:
    engines = [opened(), opened(kv_cache_type="q8_0"), opened(rope_frequency_scale=0.5), opened(flash_attention="off")]
    assert len({engine.state_format for engine in engines}) == len(engines)


def test_a_cache_that_a_model_cannot_have_is_refused_with_the_reason(opened: Open, tiny_model: Path) -> None:
    with pytest.raises(Unsupported, match="cannot keep its cache as q8_0: ") as refused:
        opened(tiny_model, kv_cache_type="q8_0")
    assert refused.value.facts == {"field": "kv_cache_type"}


@pytest.mark.parametrize(
    "options",
    [
        {"rope_frequency_scale": 0.5},
        {"rope_frequency_scale": 0.25, "rope_scaling": "linear"},
        {"rope_frequency_scale": 0.25, "rope_scaling": "yarn", "yarn_orig_ctx": 512},
        {"rope_frequency_base": 500000.0},
    ],
    ids=str,
)
def test_stretching_changes_how_positions_are_told_apart(opened: Open, options: dict[str, Any]) -> None:
    plain, stretched = opened(), opened(**options, context_length=2048)
    assert stretched.info.context_length == 2048
    assert np.abs(logits(plain) - logits(stretched)).max() > TOLERANCE


def test_the_parts_of_yarn_arrive(opened: Open) -> None:
    yarn = {"rope_frequency_scale": 0.25, "rope_scaling": "yarn", "yarn_orig_ctx": 512}
    base = logits(opened(**yarn))
    for name, value in (
        ("yarn_ext_factor", 0.0),
        ("yarn_beta_fast", 4.0),
        ("yarn_orig_ctx", 64),
    ):
        assert np.abs(logits(opened(**{**yarn, name: value})) - base).max() > 0.001, name


def test_more_shares_than_devices_are_refused(opened: Open) -> None:
    with pytest.raises(InvalidRequest, match="tensor_split has 200 shares"):
        opened(tensor_split=(1.0,) * 200)


def test_the_experts_of_the_first_layers_are_named_to_llama_cpp() -> None:
    (first, end) = experts_on_cpu(3)
    assert first.buffer_type and end.pattern is None and end.buffer_type is None
    pattern = first.pattern.decode()
    for name in ("blk.0.ffn_up_exps.weight", "blk.2.ffn_gate_up_exps.weight", "blk.1.ffn_down_chexps.weight"):
        assert re.search(pattern, name)
    for name in ("blk.3.ffn_up_exps.weight", "blk.1.ffn_up.weight", "blk.1.ffn_up_shexp.weight", "blk.21.ffn_up_exps"):
        assert not re.search(pattern, name)

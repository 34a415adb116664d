"""LoRA adapters add what they say to the weights, for the requests that want them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from runner.adapters import AdapterSet, AdapterUse
from runner.engine import Chunk, SamplerPlan
from runner.errors import ModelInvalid
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.tiny_adapter import write_tiny_adapter
from tests.tiny_model import write_tiny_model

PROMPT = list(b"what is added to the weights")
OPTIONS = LoadOptions(context_length=256, max_sequences=2, num_thread=1)
SAME = 1e-4
"""Logits, here between -7 and 7, of one computation done twice in the same order."""
TOLERANCE = 0.05
"""Of one computation done in two orders, with a cache in f16."""


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: (folder / name, write_tiny_adapter(folder / name, seed=seed)) for name, seed in (("a", 5), ("b", 6))}


@pytest.fixture
def engine(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(library, tiny_model, OPTIONS)
    yield engine
    engine.close()


def uses(added: dict[str, Any], **scales: float) -> AdapterSet:
    return tuple(AdapterUse(str(added[name][0]), name, scale) for name, scale in scales.items())


def logits(engine: LlamaEngine, adapters: AdapterSet = (), *, solo: bool = False) -> np.ndarray[Any, Any]:
    engine.load_adapters(adapters)
    engine.use_adapters(adapters)
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), PROMPT)
    context = engine._model.context
    if solo:
        engine.begin_solo(64)
        engine.step_solo(Chunk(0, 0, PROMPT, sampler))
        assert engine._solo is not None
        context = engine._solo.context
    else:
        engine.step([Chunk(0, 0, PROMPT, sampler)])
    pointer = llama_cpp.llama_get_logits_ith(context, len(PROMPT) - 1)
    told = np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy()
    sampler.close()
    engine.remove(0)
    return told


@pytest.mark.parametrize("scales", [{"a": 1.0}, {"a": 0.5}, {"a": -1.0}, {"a": 1.0, "b": 0.5}])
def test_the_logits_are_those_of_weights_with_the_product_added(
    engine: LlamaEngine, library: Library, tmp_path: Path, added: dict[str, Any], scales: dict[str, float]
) -> None:
    merged = {weight: sum(scale * added[name][1][weight] for name, scale in scales.items()) for weight in added["a"][1]}
    reference = LlamaEngine(library, write_tiny_model(tmp_path / "merged.gguf", added=merged), OPTIONS)
    try:
        expected = logits(reference)
    finally:
        reference.close()
    base = logits(engine)
    found = logits(engine, uses(added, **scales))
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(found - base).max() > 10 * TOLERANCE


def test_without_adapters_or_at_scale_0_the_model_is_as_before(engine: LlamaEngine, added: dict[str, Any]) -> None:
    base = logits(engine)
    changed = logits(engine, uses(added, a=1.0))
    assert np.abs(changed - base).max() > 1
    assert np.abs(logits(engine) - base).max() < SAME
    assert np.abs(logits(engine, uses(added, a=0.0)) - base).max() < SAME


def test_a_request_that_is_computed_apart_has_its_adapters_too(engine: LlamaEngine, added: dict[str, Any]) -> None:
    together, apart = (logits(engine, uses(added, a=1.0), solo=solo) for solo in (False, True))
    assert np.abs(together - apart).max() < TOLERANCE
    assert np.abs(logits(engine, solo=True) - apart).max() > 1


def test_a_file_that_is_no_adapter_of_this_model_is_refused_with_the_reason(
    engine: LlamaEngine, library: Library, tmp_path: Path, tiny_model: Path, added: dict[str, Any]
) -> None:
    with pytest.raises(ModelInvalid, match="cannot use the LoRA adapter with this model: "):
        engine.load_adapters((AdapterUse(str(tiny_model), "no-adapter"),))
    wide = LlamaEngine(library, write_tiny_model(tmp_path / "wide.gguf", width=256), OPTIONS)
    try:
        with pytest.raises(ModelInvalid):
            wide.load_adapters(uses(added, a=1.0))
        assert np.isfinite(logits(wide)).all()
    finally:
        wide.close()

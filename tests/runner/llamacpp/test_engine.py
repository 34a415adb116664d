"""Real llama.cpp calls on a model of random weights."""

from __future__ import annotations

import gc
import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from runner.engine import NO_NUMBERS, Chunk, OutOfCells, SamplerPlan
from runner.errors import ModelInvalid, RunnerError
from runner.llamacpp.devices import ALL_LAYERS, MARGIN, Device, list_devices, place
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import FUNCTIONS, TESTED_VERSIONS, Library, check_version
from runner.llamacpp.memory import resting_ids
from runner.llamacpp.model import measure
from runner.llamacpp.sampler import GreedySampler, SamplerChain, native_seed
from runner.loaded_model import LoadOptions, MemoryKind
from runner.sampling import SamplingParams
from tests.tiny_model import BEGIN, END, write_tiny_model

GREEDY = SamplingParams(temperature=0)
TOLERANCE = 0.02
"""How far logits (here between -7 and 7) may move when other sequences share the cells: the cache is f16."""
PROMPTS = [list(f"prompt number {number} {'and more ' * number}".encode()) for number in range(8)]


@pytest.fixture
def engine(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    """Without flash attention, whose sums of 16 bits come out otherwise with other rows beside them."""
    options = LoadOptions(512, max_sequences=8, num_batch=128, num_thread=1, flash_attention="off")
    engine = LlamaEngine(library, tiny_model, options)
    yield engine
    engine.close()


def logits(engine: LlamaEngine, row: int) -> np.ndarray[Any, Any]:
    pointer = llama_cpp.llama_get_logits_ith(engine._model.context, row)
    return np.ctypeslib.as_array(pointer, shape=(engine.info.vocabulary,)).copy()


def generate(engine: LlamaEngine, sequence_id: int, prompt: list[int], count: int, params: SamplingParams) -> list[int]:
    sampler = engine.create_sampler(SamplerPlan(params, params.seed or 1), prompt)
    tokens = list(prompt)
    computed = 0
    for _ in range(count):
        chunk = Chunk(sequence_id, computed, tokens[computed:], sampler)
        computed = len(tokens)
        tokens += engine.step([chunk])
    sampler.close()
    engine.remove(sequence_id)
    return tokens[len(prompt) :]


def test_every_function_we_call_is_in_the_library() -> None:
    assert [name for name in FUNCTIONS if not hasattr(llama_cpp.llama_cpp, name)] == []
    used = {
        name
        for path in (Path(__file__).parents[3] / "runner" / "llamacpp").glob("*.py")
        for name in re.findall(r"lib\.(llama_[a-z0-9_]+)", path.read_text("utf-8"))
    }
    structs_and_callbacks = {
        "llama_adapter_lora_p_ctypes",
        "llama_batch",
        "llama_log_callback",
        "llama_model_imatrix_data",
        "llama_progress_callback",
        "llama_token_data",
        "llama_token_data_array",
    }
    assert used - structs_and_callbacks == set(FUNCTIONS)


def test_the_installed_version_is_one_that_was_tested() -> None:
    assert llama_cpp.__version__ in TESTED_VERSIONS


def test_a_library_with_another_layout_is_noticed_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __getattr__(self, name: str) -> Any:
            return 3

    monkeypatch.setattr("runner.llamacpp.library.lib.llama_context_default_params", Other)
    with pytest.raises(RunnerError, match="reinstall"):
        check_version()


def test_the_library_may_speak_after_whoever_loaded_it_is_gone(tiny_model: Path) -> None:
    engine = LlamaEngine(Library(), tiny_model, LoadOptions(context_length=64, num_batch=16))
    gc.collect()
    engine.close()


def test_a_loaded_model_tells_what_it_is(engine: LlamaEngine) -> None:
    info = engine.info
    assert info.architecture == "llama"
    assert info.context_length == 512
    assert info.training_context == 512
    assert info.vocabulary == 261
    assert info.layers == 3
    assert info.has_chat_template
    assert info.size > 400_000
    assert engine.template_tokens == {"bos_token": "<|begin|>", "eos_token": "<|end|>"}


def test_eight_streams_in_one_batch_get_the_logits_each_gets_alone(engine: LlamaEngine) -> None:
    alone = []
    for prompt in PROMPTS:
        sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), prompt)
        engine.step([Chunk(0, 0, prompt[:-1]), Chunk(1, 0, [1])])
        engine.step([Chunk(0, len(prompt) - 1, prompt[-1:], sampler)])
        alone.append(logits(engine, 0))
        engine.remove(0)
        engine.remove(1)
        sampler.close()
    samplers = [engine.create_sampler(SamplerPlan(GREEDY, 1), prompt) for prompt in PROMPTS]
    for sequence_id, prompt in enumerate(PROMPTS):
        for start in range(0, len(prompt) - 1, 50):
            engine.step([Chunk(sequence_id, start, prompt[start : min(start + 50, len(prompt) - 1)])])
    engine.step(
        [
            Chunk(sequence_id, len(prompt) - 1, prompt[-1:], samplers[sequence_id])
            for sequence_id, prompt in enumerate(PROMPTS)
        ]
    )
    for sequence_id, expected in enumerate(alone):
        assert np.abs(logits(engine, sequence_id) - expected).max() < TOLERANCE
    for sampler in samplers:
        sampler.close()


def test_eight_streams_in_one_batch_get_the_greedy_text_each_gets_alone(engine: LlamaEngine) -> None:
    alone = [generate(engine, 0, prompt, 12, GREEDY) for prompt in PROMPTS[:4]]
    samplers = [engine.create_sampler(SamplerPlan(GREEDY, 1), prompt) for prompt in PROMPTS[:4]]
    tokens = [list(prompt) for prompt in PROMPTS[:4]]
    computed = [0] * 4
    for sequence_id, prompt in enumerate(tokens):
        tokens[sequence_id] += engine.step([Chunk(sequence_id, 0, prompt, samplers[sequence_id])])
        computed[sequence_id] = len(PROMPTS[sequence_id])
    for _ in range(11):
        new = engine.step([Chunk(n, computed[n], tokens[n][computed[n] :], samplers[n]) for n in range(4)])
        for n, token in enumerate(new):
            computed[n] = len(tokens[n])
            tokens[n].append(token)
    assert [tokens[n][len(PROMPTS[n]) :] for n in range(4)] == alone
    for sampler in samplers:
        sampler.close()


def test_a_prompt_in_chunks_gives_what_the_whole_prompt_gives(engine: LlamaEngine) -> None:
    prompt = PROMPTS[5][:60]
    whole = generate(engine, 0, prompt, 6, GREEDY)
    engine.step([Chunk(1, 0, prompt[:20])])
    engine.step([Chunk(1, 20, prompt[20:33])])
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), prompt)
    assert engine.step([Chunk(1, 33, prompt[33:], sampler)]) == whole[:1]
    sampler.close()


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine: LlamaEngine) -> None:
    def sample(seed: int) -> list[int]:
        return generate(engine, 0, PROMPTS[0], 30, SamplingParams(temperature=1.5, top_k=0, top_p=1, seed=seed))

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)
    assert native_seed(0xFFFFFFFF) != 0xFFFFFFFF, "llama.cpp takes that one for a wish for a random seed"


def test_temperature_zero_takes_the_likeliest_token(engine: LlamaEngine) -> None:
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), PROMPTS[0])
    [token] = engine.step([Chunk(0, 0, PROMPTS[0], sampler)])
    assert token == int(logits(engine, len(PROMPTS[0]) - 1).argmax())
    sampler.close()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_quick_way_to_the_likeliest_token_finds_what_a_chain_finds(engine: LlamaEngine, prompt: list[int]) -> None:
    quick = engine.create_sampler(SamplerPlan(GREEDY, 1), prompt)
    assert isinstance(quick, GreedySampler)
    chain = SamplerChain(SamplerPlan(GREEDY, 1), prompt, vocabulary=engine.info.vocabulary, window=64)
    [token] = engine.step([Chunk(0, 0, prompt, quick)])
    assert token == chain.sample(engine._model.context, len(prompt) - 1)
    chain.close()
    quick.close()
    engine.remove(0)


def test_a_row_that_holds_no_numbers_ends_the_answer(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.full(engine.info.vocabulary, np.nan, dtype=np.float32)
    monkeypatch.setattr("runner.llamacpp.sampler.read_row", lambda *_: row)
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), PROMPTS[0])
    engine.step([Chunk(0, 0, PROMPTS[0], sampler)])
    assert sampler.failure == NO_NUMBERS
    engine.remove(0)


def draws(engine: LlamaEngine, params: SamplingParams, count: int = 300) -> tuple[Counter[int], np.ndarray[Any, Any]]:
    """Tokens drawn for one and the same row, and that row's probabilities."""
    prompt = PROMPTS[0]
    engine.step([Chunk(0, 0, prompt[:-1])])
    drawn: Counter[int] = Counter()
    for seed in range(count):
        sampler = engine.create_sampler(SamplerPlan(params, seed), prompt)
        drawn += Counter(engine.step([Chunk(0, len(prompt) - 1, prompt[-1:], sampler)]))
        row = logits(engine, 0)
        llama_cpp.llama_memory_seq_rm(engine._model.memory, 0, len(prompt) - 1, -1)
        sampler.close()
    engine.remove(0)
    return drawn, np.exp(row - np.logaddexp.reduce(row))


OPEN = SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0)


def test_top_k_draws_from_the_likeliest_k(engine: LlamaEngine) -> None:
    drawn, probabilities = draws(engine, SamplingParams(temperature=1, top_k=3, top_p=1))
    assert set(drawn) <= set(np.argsort(-probabilities)[:3].tolist())
    assert len(drawn) > 1


def test_top_p_draws_from_the_smallest_set_with_that_mass(engine: LlamaEngine) -> None:
    drawn, probabilities = draws(engine, SamplingParams(temperature=1, top_k=0, top_p=0.3))
    order = np.argsort(-probabilities)
    size = int(np.searchsorted(np.cumsum(probabilities[order]), 0.3)) + 1
    assert set(drawn) <= set(order[:size].tolist())


def test_min_p_draws_nothing_less_likely_than_a_part_of_the_likeliest(engine: LlamaEngine) -> None:
    drawn, probabilities = draws(engine, SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0.4))
    assert all(probabilities[token] >= 0.4 * probabilities.max() * 0.999 for token in drawn)


def test_an_open_draw_follows_the_models_distribution(engine: LlamaEngine) -> None:
    drawn, probabilities = draws(engine, OPEN, count=1500)
    top = np.argsort(-probabilities)[:5]
    for token in top.tolist():
        expected = 1500 * probabilities[token]
        assert abs(drawn[token] - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1, mirostat=1),
        SamplingParams(temperature=1, mirostat=2, mirostat_tau=3, mirostat_eta=0.2),
        SamplingParams(temperature=1, typical_p=0.5),
    ],
)
def test_the_other_samplers_give_tokens_and_stay_reproducible(engine: LlamaEngine, params: SamplingParams) -> None:
    first = generate(engine, 0, PROMPTS[1], 20, params)
    assert first == generate(engine, 0, PROMPTS[1], 20, params)
    assert all(0 <= token < engine.info.vocabulary for token in first)


def test_mirostat_draws_less_surprising_tokens_with_a_smaller_tau(engine: LlamaEngine) -> None:
    calm, probabilities = draws(engine, SamplingParams(temperature=1, mirostat=2, mirostat_tau=0.5))
    wild, _ = draws(engine, SamplingParams(temperature=1, mirostat=2, mirostat_tau=8.0))

    def surprise(drawn: Counter[int]) -> float:
        return sum(-math.log2(probabilities[token]) * n for token, n in drawn.items()) / drawn.total()

    assert surprise(calm) < surprise(wild)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0, repeat_last_n=-1, repeat_penalty=50),
        SamplingParams(temperature=0, repeat_last_n=-1, presence_penalty=100),
        SamplingParams(temperature=0, repeat_last_n=-1, frequency_penalty=100),
    ],
)
def test_penalties_keep_tokens_from_coming_again(engine: LlamaEngine, params: SamplingParams) -> None:
    prompt = [10, 20, 30]
    tokens = generate(engine, 0, prompt, 40, params)
    assert len(set(tokens)) == 40
    assert not set(tokens) & set(prompt), "the prompt counts, too"


def test_penalties_look_no_further_back_than_told(engine: LlamaEngine) -> None:
    endless = generate(engine, 0, [10], 60, SamplingParams(temperature=0, repeat_last_n=0, repeat_penalty=50.0))
    assert endless == generate(engine, 0, [10], 60, GREEDY), "a look back over no tokens is no penalty"


def test_a_step_without_room_computes_nothing(engine: LlamaEngine) -> None:
    for start in range(0, 448, 64):
        engine.step([Chunk(0, start, [1] * 64)])
    engine.step([Chunk(1, 0, [2] * 40)])
    with pytest.raises(OutOfCells):
        engine.step([Chunk(2, 0, [3] * 60)])
    engine.remove(1)
    engine.step([Chunk(2, 0, [3] * 60)])


def test_shifting_forgets_a_part_and_goes_on(engine: LlamaEngine) -> None:
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), [])
    engine.step([Chunk(0, 0, list(range(40)))])
    engine.shift(0, 4, 18)
    [token] = engine.step([Chunk(0, 22, [50], sampler)])
    assert 0 <= token < engine.info.vocabulary
    sampler.close()


def test_text_survives_the_way_to_tokens_and_back(engine: LlamaEngine) -> None:
    for text in ("hello", "é漢😀", "\x00\x7f", "", "a" * 5000):
        tokens = engine.tokenize(text, add_special=False, parse_special=False)
        assert b"".join(map(engine.token_bytes, tokens)).decode() == text


def test_the_longest_token_counts_control_tokens(engine: LlamaEngine) -> None:
    assert engine.longest_token == len("<|assistant|>")


@pytest.mark.parametrize(("computed", "resting"), [(1, 8), (16, 16), (200, 55)])
def test_as_many_sequences_may_rest_as_can_end_in_one_step(computed: int, resting: int) -> None:
    ids = resting_ids(MemoryKind.CELLS, computed)
    assert len(ids) == resting and ids[0] == computed + 1, "one id is the scratch"
    assert ids[-1] < 256, "llama.cpp's own limit"
    assert resting_ids(MemoryKind.STATES, computed) == ()


def test_a_batch_smaller_than_the_number_of_sequences_still_steps_them_all(library: Library, tiny_model: Path) -> None:
    engine = LlamaEngine(library, tiny_model, LoadOptions(context_length=64, max_sequences=8, num_batch=1))
    assert engine.info.max_rows == 8
    samplers = [engine.create_sampler(SamplerPlan(GREEDY, 1), []) for _ in range(8)]
    assert len(engine.step([Chunk(number, 0, [65 + number], samplers[number]) for number in range(8)])) == 8
    engine.close()


def test_the_begin_token_is_added_once(engine: LlamaEngine) -> None:
    assert engine.tokenize("hi", add_special=True, parse_special=True)[:1] == [BEGIN]
    brought = engine.tokenize("<|begin|>hi", add_special=True, parse_special=True)
    assert brought.count(BEGIN) == 1
    assert BEGIN not in engine.tokenize("<|begin|>hi", add_special=False, parse_special=False)


def test_control_tokens_have_no_text_and_end_an_answer_where_they_should(engine: LlamaEngine) -> None:
    assert engine.token_bytes(END) == b""
    assert engine.ends_generation(END)
    assert not engine.ends_generation(65)


def test_a_vocabulary_without_a_begin_token_is_never_asked_for_one(library: Library, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "no-begin.gguf", begin_token=False)
    engine = LlamaEngine(library, path, LoadOptions(context_length=64, max_sequences=1, num_batch=16))
    assert engine.tokenize("hi", add_special=True, parse_special=True) == [104, 105]
    engine.close()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all", random.Random(1).randbytes(4096)])
def test_a_file_that_is_no_model_is_a_clear_error(library: Library, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"llama\.cpp"):
        LlamaEngine(library, path, LoadOptions(context_length=64))


def test_progress_of_loading_is_told(library: Library, tiny_model: Path) -> None:
    told: list[float] = []
    LlamaEngine(library, tiny_model, LoadOptions(context_length=64, num_batch=16), on_progress=told.append).close()
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_measuring_allocates_nothing_and_agrees_with_loading(library: Library, tiny_model: Path) -> None:
    options = LoadOptions(context_length=512, max_sequences=8, num_batch=64)
    needed = measure([tiny_model], options, library.log)
    engine = LlamaEngine(library, tiny_model, options)
    assert abs(needed - engine.info.size) < 0.1 * needed + 200_000
    engine.close()


def test_this_machines_cpu_is_listed_with_its_memory() -> None:
    [cpu] = [device for device in list_devices() if device.kind == "cpu"]
    assert 0 < cpu.memory_free <= cpu.memory_total


GPU = Device("CUDA0", "gpu", "a card", 8 * 1024**3, 8 * 1024**3)


@pytest.mark.parametrize(
    ("gpus", "wanted", "needed", "layers", "said"),
    [
        ([GPU], None, 4 * 1024**3, ALL_LAYERS, "All layers on CUDA0"),
        ([GPU], None, GPU.memory_free - MARGIN, ALL_LAYERS, "All layers"),
        ([GPU], None, GPU.memory_free - MARGIN + 1, 0, "set num_gpu"),
        ([GPU, GPU], None, 12 * 1024**3, ALL_LAYERS, "All layers"),
        ([GPU], 7, 99 * 1024**3, 7, "as num_gpu asks"),
        ([GPU], 0, 1, 0, "num_gpu is 0"),
        ([GPU], -1, 1, ALL_LAYERS, "All layers"),
        ([], None, 1, 0, "no GPU"),
        ([], 9, 1, 0, "num_gpu asked for 9"),
    ],
)
def test_layers_go_to_the_gpu_when_they_fit_and_the_reason_is_told(
    gpus: list[Device], wanted: int | None, needed: int, layers: int, said: str
) -> None:
    placement = place(gpus, wanted, lambda: needed)
    assert placement.gpu_layers == layers
    assert said in placement.reason

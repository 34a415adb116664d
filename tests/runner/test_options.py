"""Options of model, configuration and request become one set."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.parameters import PARAMETERS, REMOVED, ParameterValue
from runner.errors import InvalidRequest, RequestError
from runner.options import Resolved, resolve_options
from runner.sampling import SamplingParams
from runner.supervisor.types import LoadWishes


def resolve(
    request: Mapping[str, object] | None = None,
    *,
    model: Mapping[str, ParameterValue] | None = None,
    config: Mapping[str, object] | None = None,
    training_context: int = 8192,
    path: str = "options.",
    processors: int = 16,
) -> Resolved:
    return resolve_options(
        model=model or {},
        config=config or {},
        request=request or {},
        training_context=training_context,
        request_path=path,
        processors=processors,
    )


def test_without_anything_the_defaults_of_the_api_hold() -> None:
    resolved = resolve()
    assert resolved == Resolved(SamplingParams(), -1, 4, None, (), LoadWishes(), ())


def test_a_request_wins_over_the_configuration_and_that_over_the_model() -> None:
    resolved = resolve(
        {"temperature": 0.1},
        config={"temperature": 0.2, "top_k": 20},
        model={"temperature": 0.3, "top_k": 30, "top_p": 0.5},
    )
    sampling = resolved.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.1, 20, 0.5, 0.0)


def test_null_leaves_an_option_to_the_next_source() -> None:
    assert resolve({"temperature": None}, model={"temperature": 0.3}).sampling.temperature == 0.3


def test_every_sampling_option_arrives() -> None:
    given_options: dict[str, object] = {
        "repeat_penalty": 1.1, "repeat_last_n": 32, "presence_penalty": 0.5, "frequency_penalty": -0.5,
        "temperature": 0, "top_k": 5, "top_p": 0.7, "min_p": 0.05, "typical_p": 0.9,
        "mirostat": 2, "mirostat_tau": 4, "mirostat_eta": 0.2, "seed": 42,
    }  # fmt: skip
    assert resolve(given_options).sampling == SamplingParams(**given_options)  # type: ignore[arg-type]


def test_every_wish_about_loading_arrives() -> None:
    wishes: dict[str, object] = {
        "num_ctx": 2048, "num_batch": 256, "num_gpu": 7, "main_gpu": 1, "num_thread": 3, "use_mmap": False,
    }  # fmt: skip
    resolved = resolve(wishes)
    assert resolved.wishes == LoadWishes(**wishes)  # type: ignore[arg-type]
    assert resolved.num_ctx == 2048


def test_wishes_about_devices_caches_and_stretched_windows_arrive() -> None:
    wishes: dict[str, object] = {
        "use_mlock": True, "split_mode": "row", "num_cpu_moe": 3, "kv_cache_type": "q8_0", "flash_attention": "on",
        "rope_scaling": "yarn", "rope_frequency_base": 5e5, "rope_frequency_scale": 0.25, "yarn_orig_ctx": 8192,
        "yarn_ext_factor": 1.0, "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0,
    }  # fmt: skip
    assert resolve(wishes).wishes == LoadWishes(**wishes)  # type: ignore[arg-type]
    for value in ([3, 1.5], [3.0, 1.5], ["3", "1.5"]):
        assert resolve({"tensor_split": value}).wishes.tensor_split == (3, 1.5)


def test_a_stretched_window_may_be_longer_than_the_training() -> None:
    assert resolve({"num_ctx": 32768}).num_ctx == 8192
    stretched = resolve({"num_ctx": 32768, "rope_frequency_scale": 0.25})
    assert (stretched.num_ctx, stretched.ignored) == (32768, ())
    assert resolve({"num_ctx": 32768, "rope_frequency_scale": 0.25, "rope_scaling": "none"}).num_ctx == 8192


def test_a_quantized_cache_without_flash_attention_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="kv_cache_type q8_0 needs flash attention"):
        resolve({"kv_cache_type": "q8_0", "flash_attention": "off"})
    assert resolve({"kv_cache_type": "f16", "flash_attention": "off"}).wishes.flash_attention == "off"


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_known_option_has_an_effect_or_is_refused_by_name(name: str) -> None:
    parameter = PARAMETERS[name]
    examples: dict[str, object] = {
        "int": max(2, int(parameter.minimum or 0)),
        "float": 0.5,
        "bool": True,
        "strings": ["x"],
        "string": "x",
        "numbers": [0.5],
        "choice": parameter.choices[-1:] and parameter.choices[-1],
    }
    try:
        assert resolve({name: examples[parameter.kind]}) != resolve()
    except InvalidRequest as error:
        assert error.facts["field"] == f"options.{name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_gpu", -1), ("num_thread", 0), ("seed", -1), ("rope_frequency_scale", 0)],
)
def test_values_that_ask_for_nothing_change_nothing(name: str, value: object) -> None:
    assert resolve({name: value}) == resolve()


def test_negative_lengths_mean_without_end() -> None:
    assert resolve({"num_predict": -2}).num_predict == -1
    assert resolve({"num_keep": -1}).num_keep > 10**9


def test_a_window_beyond_the_training_is_cut_and_said_so() -> None:
    resolved = resolve({"num_ctx": 100_000})
    assert (resolved.num_ctx, resolved.wishes.num_ctx, resolved.ignored) == (8192, 8192, ("options.num_ctx",))
    assert resolve(model={"num_ctx": 100_000}).ignored == ("num_ctx",)
    assert resolve({"num_ctx": 100_000}, training_context=0).num_ctx == 100_000


def test_more_threads_than_processors_are_cut_and_said_so() -> None:
    resolved = resolve({"num_thread": 4096}, processors=8)
    assert (resolved.wishes.num_thread, resolved.ignored) == (8, ("options.num_thread",))
    assert resolve(model={"num_thread": 64}, processors=8).ignored == ("num_thread",)
    assert resolve({"num_thread": 8}, processors=8).ignored == ()


@pytest.mark.parametrize("name", sorted(REMOVED))
def test_removed_options_are_listed_whatever_their_value(name: str) -> None:
    resolved = resolve({name: {"any": "thing"}})
    assert resolved.ignored == (f"options.{name}",)
    assert resolved.sampling == SamplingParams()


def test_an_unknown_option_is_refused_with_its_path_and_neighbours() -> None:
    with pytest.raises(
        InvalidRequest, match=r"'options\.temprature' is unknown; did you mean 'temperature'\?"
    ) as caught:
        resolve({"temprature": 1})
    assert caught.value.field == "options.temprature"


def test_an_unknown_option_unlike_any_is_refused_with_all_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"known are .*num_ctx.*typical_p"):
        resolve({"zzz": 1})


def test_a_huge_unknown_name_is_refused_shortly() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve({"x" * 5_000_000: 1})
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "hot"), ("temperature", -1), ("top_k", 1.5), ("num_ctx", True), ("stop", [""]), ("stop", [1])],
)
def test_a_wrong_value_is_refused_with_its_path(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=rf"^options\.{name} must be") as caught:
        resolve({name: value})
    assert caught.value.field == f"options.{name}"


def test_paths_follow_where_the_options_stand() -> None:
    with pytest.raises(InvalidRequest, match=r"^top_p must be") as caught:
        resolve({"top_p": 2}, path="")
    assert caught.value.field == "top_p"


def test_a_wrong_configuration_is_told_as_such() -> None:
    with pytest.raises(InvalidRequest, match=r"^The configuration of this model is wrong: temperature must be"):
        resolve(config={"temperature": "hot"})


def test_guessing_ahead_is_left_to_what_pays_unless_something_is_said() -> None:
    assert resolve({}).draft_num_predict is None
    assert resolve({"draft_num_predict": 0}).draft_num_predict == 0
    assert resolve({}, model={"draft_num_predict": 4}).draft_num_predict == 4


def test_a_request_may_name_another_draft_model_or_none() -> None:
    model = {"draft_model": "small:1b"}
    assert resolve().draft_model is None
    assert resolve(model=model).draft_model == "small:1b"
    assert resolve({"draft_model": "other:1b"}, model=model).draft_model == "other:1b"
    assert resolve({"draft_model": ""}, model=model).draft_model == ""
    for wrong in (" ", 5, ["small:1b"], "x" * 2000):
        with pytest.raises(InvalidRequest, match="draft_model"):
            resolve({"draft_model": wrong})


def test_what_a_model_brings_and_cannot_apply_is_listed() -> None:
    resolved = resolve(model={"num_gqa": 8, "temperature": -5, "top_k": 3, "odd": 1})
    assert resolved.sampling == SamplingParams(top_k=3)
    assert resolved.ignored == ("PARAMETER num_gqa", "PARAMETER temperature", "PARAMETER odd")


def test_a_requests_stops_replace_the_models() -> None:
    assert resolve(model={"stop": ["<end>"]}).stop == ("<end>",)
    assert resolve({"stop": ["a", "b", "a"]}, model={"stop": ["<end>"]}).stop == ("a", "b")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(st.dictionaries(st.sampled_from(sorted({*PARAMETERS, *REMOVED, "deterministic"})) | st.text(), JSON, max_size=4))
def test_any_options_are_resolved_or_refused(options: dict[str, object]) -> None:
    try:
        resolved = resolve(options)
    except RequestError:
        return
    assert all(resolved.stop)
    assert resolved.num_predict >= -1
    assert resolved.num_keep >= 0

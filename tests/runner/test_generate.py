"""From a call to a request to the worker, and back as events."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from registry.digest import Digest
from registry.errors import ModelCorrupt
from registry.errors import Unsupported as NotSupportedHere
from registry.manifest import DRAFT_LAYER, MODEL_LAYER, Layer, ModelConfig
from registry.name import ModelName
from runner.calls import Call, Completion, Conversation
from runner.chat.types import (
    ChatPrompt,
    Failed,
    Finished,
    InsertPrompt,
    Limits,
    Message,
    TextDelta,
    TextPrompt,
    TokenPrompt,
)
from runner.errors import InvalidRequest, ModelNotFound, ReportedError, RunnerError, Unsupported
from runner.generate import Generator
from runner.loaded_model import DeviceUse
from runner.settings import ModelSettings, Settings
from runner.supervisor.types import LoadWishes, MemoryFacts
from tests.fakes import FakeMetadata, FakeModel, FakeStore, FakeSupervisor, answer, finished

USER = Message("user", "Hello")
NO_TEMPLATE = FakeMetadata(chat_template=None)
GO_TEMPLATE = "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"


def generator(supervisor: FakeSupervisor, model: FakeModel | None = None, **models: ModelSettings) -> Generator:
    store = FakeStore(FakeModel() if model is None else model)
    return Generator(cast("Any", store), cast("Any", supervisor), Settings(models=models))


def chat(*messages: Message, **more: Any) -> Call:
    return Call(request_id="r", model="m", prompt=Conversation(messages=messages), **more)


def complete(prompt: str = "Hello", *, model: str = "m", options: dict[str, Any] | None = None, **more: Any) -> Call:
    return Call(request_id="r", model=model, prompt=Completion(prompt=prompt, **more), options=options or {})


async def prompt_of(call: Call, model: FakeModel | None = None) -> ChatPrompt | TextPrompt | TokenPrompt | InsertPrompt:
    supervisor = FakeSupervisor(answer("Hi"))
    await generator(supervisor, model).complete(call)
    return supervisor.request.prompt


async def messages_of(call: Call, model: FakeModel | None = None) -> list[tuple[str, str]]:
    prompt = await prompt_of(call, model)
    assert isinstance(prompt, ChatPrompt)
    return [(message.role, message.content) for message in prompt.messages]


async def test_an_open_generation_gives_its_events_and_then_its_lease_back() -> None:
    supervisor = FakeSupervisor([TextDelta("a")])
    generation = await generator(supervisor).open(chat(USER))
    assert (generation.load_ns, generation.loaded, generation.model.name.short) == (
        5_000_000,
        supervisor.loaded,
        "m:latest",
    )
    supervisor.send(TextDelta("b"), finished())
    assert [event async for event in generation] == [TextDelta("a"), TextDelta("b"), finished()]
    await generation.aclose()
    assert not supervisor.open_leases and not supervisor.cancelled


async def test_opening_waits_for_the_first_event() -> None:
    supervisor = FakeSupervisor()
    opening = asyncio.create_task(generator(supervisor).open(chat(USER)))
    await supervisor.until(lambda fake: fake.requests)
    await asyncio.sleep(0)
    assert not opening.done()
    supervisor.send(TextDelta("a"))
    await (await opening).aclose()


async def test_a_failure_before_any_text_is_raised_and_the_lease_given_back() -> None:
    supervisor = FakeSupervisor([Failed("context_length_exceeded", "Too long.", {"prompt_tokens": 9})])
    with pytest.raises(ReportedError) as caught:
        await generator(supervisor).open(chat(USER))
    assert (caught.value.code, caught.value.message, caught.value.facts) == (
        "context_length_exceeded", "Too long.", {"prompt_tokens": 9},
    )  # fmt: skip
    assert not supervisor.open_leases


async def test_a_failure_after_text_is_an_event() -> None:
    supervisor = FakeSupervisor([TextDelta("a"), Failed("engine_crashed", "It died.")])
    generation = await generator(supervisor).open(chat(USER))
    assert [type(event) for event in [event async for event in generation]] == [TextDelta, Failed]
    await generation.aclose()
    assert not supervisor.open_leases


async def test_a_whole_answer_with_a_failure_in_it_is_raised() -> None:
    supervisor = FakeSupervisor([TextDelta("a"), Failed("engine_crashed", "It died.")])
    with pytest.raises(RunnerError, match="It died"):
        await generator(supervisor).complete(chat(USER))
    assert not supervisor.open_leases


async def test_a_whole_answer_is_its_text_and_end() -> None:
    told = await generator(FakeSupervisor(answer("a", "b"))).complete(chat(USER))
    assert told.text == "ab"
    assert isinstance(told.finished, Finished)


async def test_closing_early_cancels_once() -> None:
    supervisor = FakeSupervisor([TextDelta("a")])
    generation = await generator(supervisor).open(chat(USER))
    await generation.aclose()
    await generation.aclose()
    assert supervisor.cancelled == list(supervisor.requests)
    assert not supervisor.open_leases
    assert [event async for event in generation] == []


@pytest.mark.parametrize("phase", ["loading", "first event"])
async def test_cancelling_the_opening_gives_everything_back(phase: str) -> None:
    supervisor = FakeSupervisor()
    if phase == "loading":
        supervisor.lease_gate.clear()
    opening = asyncio.create_task(generator(supervisor).open(chat(USER)))
    await supervisor.until(lambda fake: fake.specs if phase == "loading" else fake.requests)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert supervisor.given_up_leases == (phase == "loading")
    assert supervisor.cancelled == list(supervisor.requests)
    assert not supervisor.open_leases


async def test_the_model_is_leased_as_its_file_and_options_say() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    await generator(supervisor).complete(chat(USER, options={"num_ctx": 512, "num_gpu": 3}, keep_alive=9.0))
    (spec,) = supervisor.specs
    model = FakeModel()
    assert (spec.name, spec.digest, spec.weights_digest, spec.path) == (
        "m:latest", model.digest, str(model.model_digest), model.model_path,
    )  # fmt: skip
    assert spec.memory == MemoryFacts(weights=1000, kv_per_token=10, training_context=8192)
    assert spec.wishes == LoadWishes(num_ctx=512, num_gpu=3)
    assert spec.details == model.details()
    assert supervisor.keep_alives == [9.0]


async def test_the_request_carries_options_limits_and_stops() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    options = {"num_predict": 7, "num_ctx": 512, "num_keep": 2, "stop": ["x"], "seed": 3, "temperature": 0}
    await generator(supervisor).complete(chat(USER, options=options, truncate=True, shift=True))
    request = supervisor.request
    assert request.limits == Limits(num_predict=7, num_ctx=512, truncate=True, shift=True, num_keep=2)
    assert request.stop == ("x",)
    assert (request.sampling.seed, request.sampling.temperature) == (3, 0.0)
    assert not request.wants_context


async def test_the_models_parameters_and_configuration_apply() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    model = FakeModel(parameters={"temperature": 0.3, "top_k": 3})
    settings = ModelSettings(options={"top_k": 4})
    await generator(supervisor, model, M=settings).complete(chat(USER))
    assert (supervisor.request.sampling.temperature, supervisor.request.sampling.top_k) == (0.3, 4)


async def test_a_models_system_text_and_messages_come_first() -> None:
    model = FakeModel(system="Be brief.", messages=[("user", "1"), ("assistant", "2")])
    assert await messages_of(chat(USER), model) == [
        ("system", "Be brief."), ("user", "1"), ("assistant", "2"), ("user", "Hello"),
    ]  # fmt: skip


async def test_a_system_message_of_the_request_replaces_the_models() -> None:
    model = FakeModel(system="Be brief.", messages=[("user", "1"), ("assistant", "2")])
    assert await messages_of(chat(Message("system", "Be long."), USER), model) == [
        ("system", "Be long."), ("user", "1"), ("assistant", "2"), ("user", "Hello"),
    ]  # fmt: skip


async def test_a_completion_is_a_users_message() -> None:
    model = FakeModel(system="Be brief.", messages=[("user", "1"), ("assistant", "2")])
    assert await messages_of(complete(), model) == [
        ("system", "Be brief."), ("user", "1"), ("assistant", "2"), ("user", "Hello"),
    ]  # fmt: skip
    assert await messages_of(complete(system="Be long.")) == [("system", "Be long."), ("user", "Hello")]
    assert await messages_of(complete(system=""), model) == [("user", "1"), ("assistant", "2"), ("user", "Hello")]


async def test_a_completion_goes_on_from_its_context_without_the_models_messages() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    model = FakeModel(messages=[("user", "1"), ("assistant", "2")])
    await generator(supervisor, model).complete(complete(context=(1, 2)))
    request = supervisor.request
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.messages == (USER,)
    assert request.context == (1, 2)
    assert request.wants_context


async def test_a_raw_completion_is_left_alone() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    await generator(supervisor, FakeModel(system="Be brief.")).complete(complete("<s>Hello", raw=True))
    assert supervisor.request.prompt == TextPrompt("<s>Hello")
    assert not supervisor.request.wants_context


@pytest.mark.parametrize("extra", [{"system": "x"}, {"template": "x"}, {"context": ()}, {"context": (1,)}])
async def test_a_raw_completion_takes_nothing_else(extra: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="raw mode does not support template, system, or context"):
        await generator(FakeSupervisor()).open(complete(raw=True, **extra))


async def test_without_a_chat_template_a_completion_is_its_text_and_says_what_is_left_out() -> None:
    model = FakeModel(header=NO_TEMPLATE, system="Be brief.", messages=[("user", "1")])
    told = await generator(supervisor := FakeSupervisor(answer("Hi")), model).complete(complete())
    assert supervisor.request.prompt == TextPrompt("Hello")
    assert told.generation.ignored == ("SYSTEM", "MESSAGE")


async def test_without_a_chat_template_a_requested_system_text_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        await generator(FakeSupervisor(), FakeModel(header=NO_TEMPLATE)).open(complete(system="Be brief."))
    assert caught.value.facts["field"] == "system"


async def test_templates_override_from_request_over_model_over_file() -> None:
    own = FakeModel(template="{{ messages[0].content }}")
    for call, model, expected in (
        (complete(), FakeModel(), None),
        (complete(), own, own.template),
        (complete(template="{{ messages }}"), own, "{{ messages }}"),
        (chat(USER), own, own.template),
    ):
        prompt = await prompt_of(call, model)
        assert isinstance(prompt, ChatPrompt)
        assert prompt.template == expected


@pytest.mark.parametrize("template", [GO_TEMPLATE, "{{- range .Messages }}{{ .Content }}{{ end }}"])
async def test_templates_in_gos_language_count_as_those_in_jinja_do(template: str) -> None:
    for header in (FakeMetadata(), NO_TEMPLATE):
        model = FakeModel(template=template, header=header)
        for call in (chat(USER), complete()):
            told = await generator(supervisor := FakeSupervisor(answer("Hi")), model).complete(call)
            assert isinstance(supervisor.request.prompt, ChatPrompt)
            assert supervisor.request.prompt.template == template
            assert told.generation.ignored == ()
    prompt = await prompt_of(complete(template=template), FakeModel(template="{{ messages }}"))
    assert isinstance(prompt, ChatPrompt)
    assert prompt.template == template


class _Files:
    """A store's files, as far as they are asked for."""

    def __init__(self) -> None:
        self.blobs = self

    def verify_unchanged(self, digest: Digest, size: int) -> None:
        """They always are."""

    def metadata(self, digest: Digest) -> FakeMetadata:
        return FakeMetadata()

    def blob_path(self, digest: Digest) -> Path:
        return Path(f"file-{digest.hex[:2]}")


def _with_draft(**more: Any) -> FakeModel:
    model = FakeModel(store=_Files(), **more)
    layer = Layer(DRAFT_LAYER, Digest.parse(f"sha256:{'12' * 32}"), 5)
    model.manifest = dataclasses.replace(model.manifest, layers=(layer,))
    return model


def _small(**more: Any) -> FakeModel:
    weights = (Layer(MODEL_LAYER, Digest.parse(f"sha256:{'34' * 32}"), 5),)
    return FakeModel(name=ModelName.parse("small:1b"), weights=weights, store=_Files(), **more)


async def test_the_draft_model_that_comes_with_a_model_is_loaded_with_it() -> None:
    told = await generator(supervisor := FakeSupervisor(answer("Hi")), _with_draft()).complete(chat(USER))
    assert told.generation.ignored == ()
    [spec] = supervisor.specs
    assert spec.wishes.draft is not None and spec.wishes.draft.files.paths == ("file-12",)
    assert supervisor.request.limits.uses_draft_model


@pytest.mark.parametrize(
    ("parameters", "options"), [({"draft_model": "small:1b"}, {}), ({}, {"draft_model": "small:1b"})]
)
async def test_a_named_draft_model_goes_before_the_one_that_comes_with_the_model(
    parameters: dict[str, Any], options: dict[str, Any]
) -> None:
    store = FakeStore(_with_draft(parameters=parameters), _small())
    supervisor = FakeSupervisor(answer("Hi"))
    await Generator(cast("Any", store), cast("Any", supervisor), Settings()).complete(chat(USER, options=options))
    [spec] = supervisor.specs
    assert spec.wishes.draft is not None
    assert (spec.wishes.draft.files.name, spec.wishes.draft.files.paths) == ("small:1b", ("file-34",))
    assert spec.wishes.draft.weights == _small().header.weights_size


async def test_a_request_may_do_without_the_draft_model() -> None:
    without = chat(USER, options={"draft_model": ""})
    await generator(supervisor := FakeSupervisor(answer("Hi")), _with_draft()).complete(without)
    assert supervisor.specs[0].wishes.draft is None
    assert not supervisor.request.limits.uses_draft_model


async def test_a_draft_model_that_is_not_there_or_makes_no_text_is_an_error_that_names_it() -> None:
    store = FakeStore(FakeModel(), _small(can=("embedding",)))
    opened = Generator(cast("Any", store), cast("Any", FakeSupervisor()), Settings())
    with pytest.raises(ModelNotFound, match="model 'gone:1b' not found"):
        await opened.open(chat(USER, options={"draft_model": "gone:1b"}))
    with pytest.raises(Unsupported, match="small:1b does not generate text") as caught:
        await opened.open(chat(USER, options={"draft_model": "small:1b"}))
    assert caught.value.facts["field"] == "options.draft_model"


async def test_a_draft_model_that_does_not_fit_is_refused_if_it_was_named_and_told_of_if_it_came_with_the_model() -> (
    None
):
    supervisor = FakeSupervisor(answer("Hi"))
    supervisor.loaded = msgspec.structs.replace(supervisor.loaded, draft_failure="The draft model does not fit.")
    told = await generator(supervisor, _with_draft()).complete(chat(USER))
    assert told.generation.ignored == ("DRAFT",)
    store = FakeStore(FakeModel(), _small())
    opened = Generator(cast("Any", store), cast("Any", supervisor), Settings())
    with pytest.raises(Unsupported, match="The draft model does not fit") as caught:
        await opened.open(chat(USER, options={"draft_model": "small:1b"}))
    assert caught.value.facts["field"] == "options.draft_model"
    assert not supervisor.open_leases


async def test_wishes_for_gpus_are_told_to_be_in_vain_where_there_are_none() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    vain = {"main_gpu": 3, "num_gpu": 99}
    harmless = {"num_gpu": 0, "main_gpu": 0}
    ignored = []
    for options in (vain, harmless, {"num_gpu": -1}):
        told = await generator(supervisor).complete(chat(USER, options=options))
        ignored.append(told.generation.ignored)
    assert ignored == [("options.main_gpu", "options.num_gpu"), (), ()]
    gpu = DeviceUse("GPU0", "gpu", "a card", 3, 64_000, 32_000)
    supervisor.loaded = msgspec.structs.replace(supervisor.loaded, devices=(*supervisor.loaded.devices, gpu))
    told = await generator(supervisor).complete(chat(USER, options=vain))
    assert told.generation.ignored == ()


async def test_where_a_renderer_is_wanted_the_template_of_the_file_is_used_and_that_is_told() -> None:
    config = ModelConfig(renderer="qwen3-coder", parser="qwen3-coder")
    model = FakeModel(template="{{ .Prompt }}", config=config)
    told = await generator(supervisor := FakeSupervisor(answer("Hi")), model).complete(chat(USER))
    assert isinstance(supervisor.request.prompt, ChatPrompt)
    assert supervisor.request.prompt.template is None
    assert told.generation.ignored == ("RENDERER", "PARSER")
    with pytest.raises(Unsupported, match="renderer 'qwen3-coder', which is not built in"):
        await generator(FakeSupervisor(), FakeModel(config=config, header=NO_TEMPLATE)).open(chat(USER))


async def test_a_model_for_a_later_puna_is_refused_and_one_for_a_later_other_program_is_not() -> None:
    other = FakeModel(config=ModelConfig(requires="99.0.0"))
    await generator(FakeSupervisor(answer("Hi")), other).complete(chat(USER))
    with pytest.raises(NotSupportedHere, match="requires Puna 99"):
        await generator(
            FakeSupervisor(), FakeModel(config=ModelConfig(requires="99.0.0", requires_program="puna"))
        ).open(chat(USER))


async def test_text_between_two_texts_is_asked_of_models_that_can_insert() -> None:
    template = "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}"
    model = FakeModel(template=template, can=("completion", "insert"), system="not for this")
    prompt = await prompt_of(complete("def f(", suffix="return x"), model)
    assert prompt == ChatPrompt((Message("user", "def f("),), template, suffix="return x")
    assert await prompt_of(complete("def f(", suffix="return x")) == InsertPrompt("def f(", "return x")
    with pytest.raises(InvalidRequest, match="raw mode does not support suffix"):
        await generator(FakeSupervisor()).open(complete(raw=True, suffix="x"))


async def test_what_has_no_place_beside_a_suffix_is_refused() -> None:
    wrong: dict[str, Any] = {"system": "Be brief.", "context": (1,)}
    for field, value in wrong.items():
        with pytest.raises(Unsupported) as refused:
            await generator(FakeSupervisor()).open(complete("def f(", suffix="return x", **{field: value}))
        assert refused.value.facts["field"] == field


async def test_how_hard_to_think_reaches_the_template_and_where_there_is_none_that_is_told() -> None:
    model = FakeModel(can=("completion", "thinking"))
    wish: dict[str, Any] = {"thinking": True, "effort": "low"}
    prompt = await prompt_of(dataclasses.replace(complete(), **wish), model)
    assert isinstance(prompt, ChatPrompt)
    assert (prompt.thinking, prompt.effort) == (True, "low")
    for call in (complete(raw=True), complete("def f(", suffix="return x")):
        told = await generator(FakeSupervisor(answer("Hi")), model).complete(dataclasses.replace(call, **wish))
        assert told.generation.ignored == ("think",)


@pytest.mark.parametrize(
    ("family", "name", "is_cut"), [("qwen3", "m", True), ("qwen2", "deepseek-r1:7b", True), ("qwen2", "m", False)]
)
async def test_models_that_write_their_thoughts_down_do_not_read_them_again(
    family: str, name: str, is_cut: bool
) -> None:
    model = FakeModel(name=ModelName.parse(name), config=ModelConfig(model_family=family))
    turns = (
        USER,
        Message("assistant", "<think>\nhm\n</think>\n\n4"),
        Message("assistant", "no <think>this</think>"),
        USER,
        Message("assistant", "<think>now</think>5"),
    )
    call = Call(request_id="r", model=name, prompt=Conversation(messages=turns))
    assert [content for _, content in await messages_of(call, model)] == [
        "Hello",
        "4" if is_cut else "<think>\nhm\n</think>\n\n4",
        "no <think>this</think>",
        "Hello",
        "<think>now</think>5",
    ]


@pytest.mark.parametrize("thinking", [None, False])
async def test_the_wish_not_to_think_reaches_the_template(thinking: bool | None) -> None:
    prompt = await prompt_of(chat(USER, thinking=thinking))
    assert isinstance(prompt, ChatPrompt)
    assert prompt.thinking is thinking


@pytest.mark.parametrize(("name", "error"), [("", InvalidRequest), ("..", InvalidRequest), ("other", ModelNotFound)])
async def test_a_name_that_leads_nowhere_is_refused(name: str, error: type[RunnerError]) -> None:
    supervisor = FakeSupervisor()
    with pytest.raises(error):
        await generator(supervisor).open(complete(model=name))
    assert not supervisor.specs


async def test_a_model_that_only_embeds_does_not_chat() -> None:
    embedder = FakeModel(can=("embedding",))
    with pytest.raises(Unsupported, match='"m" does not support chat'):
        await generator(FakeSupervisor(), embedder).open(chat(USER))
    with pytest.raises(Unsupported, match='"m" does not support generate'):
        await generator(FakeSupervisor(), embedder).open(complete())


async def test_a_changed_file_is_noticed_before_loading() -> None:
    supervisor = FakeSupervisor()
    with pytest.raises(ModelCorrupt):
        await generator(supervisor, FakeModel(damage=ModelCorrupt("changed"))).open(chat(USER))
    assert not supervisor.specs


async def test_an_empty_call_loads_and_asks_nothing() -> None:
    supervisor = FakeSupervisor()
    ignored = await generator(supervisor).load(chat(options={"num_ctx": 10**6}, keep_alive=60.0))
    assert ignored == ("options.num_ctx",)
    assert supervisor.keep_alives == [60.0]
    assert not supervisor.requests and not supervisor.open_leases


async def test_unloading_names_the_weights() -> None:
    supervisor = FakeSupervisor()
    await generator(supervisor).unload(chat())
    assert supervisor.unloaded == [str(FakeModel().model_digest)]
    assert not supervisor.specs


async def test_requests_with_one_id_differ_for_the_worker() -> None:
    supervisor = FakeSupervisor([TextDelta("a")])
    here = generator(supervisor)
    generations = [await here.open(chat(USER)) for _ in range(3)]
    assert len(supervisor.requests) == 3
    for generation in generations:
        await generation.aclose()


async def test_names_are_found_whatever_their_case() -> None:
    supervisor = FakeSupervisor(answer("Hi"))
    model = FakeModel(name=ModelName.parse("Mixed:Tag"))
    await generator(supervisor, model).complete(complete(model="mixed:tag"))
    assert supervisor.specs[0].name == "Mixed:Tag"

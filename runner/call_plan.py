"""What comes of a call: the model, how it is loaded, and what is asked of its worker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from registry.store import ModelStore
from registry.stored_model import StoredModel
from runner.call_prompt import Prompt, check_media, possible_thinking, prompt_of
from runner.calls import Call, Completion, Conversation
from runner.chat.types import ChatRequest, Limits
from runner.errors import Unsupported
from runner.loaded_model import LoadedModel
from runner.model_lookup import find_model, usable_model
from runner.model_spec import adapters_of, model_spec, named_draft, options_of, own_draft
from runner.options import Resolved
from runner.sampling import SamplingParams
from runner.settings import Settings
from runner.supervisor.types import DraftWish, ModelSpec

_SEEDS = 2**32 - 1
_OF_GPUS = ("main_gpu", "num_gpu", "num_cpu_moe", "split_mode", "tensor_split")
"""Options that mean nothing where there is no GPU."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A call, resolved: what is loaded and what is asked of it."""

    model: StoredModel
    spec: ModelSpec
    request: ChatRequest
    ignored: tuple[str, ...]
    draft_field: str = ""
    """What named its draft model; empty for one that came with the model."""
    gpu_fields: tuple[str, ...] = ()
    """What the request wants of GPUs."""

    def settled(self, loaded: LoadedModel) -> CallPlan:
        """The plan, now that the model is loaded. Raises Unsupported for a draft model that was named and does not fit.

        One that only came with the model is left out, and that is told; as are wishes for GPUs where there are none.
        """
        vain = () if any(device.kind != "cpu" for device in loaded.devices) else self.gpu_fields
        if loaded.draft_failure and self.spec.wishes.draft is not None:
            if self.draft_field:
                raise Unsupported(loaded.draft_failure, field=self.draft_field)
            vain = (*vain, "DRAFT")
        return dataclasses.replace(self, ignored=(*self.ignored, *vain)) if vain else self


def plan_call(call: Call, store: ModelStore, settings: Settings) -> CallPlan:
    """Find the model, and merge its parameters, system text and messages with the call's.

    Reads files, and hashes those that have changed. Raises RunnerError and RegistryError.
    """
    model = usable_model(store, call.model)
    if "completion" not in model.capabilities() and not call.is_empty:  # any model can be loaded
        task = "chat" if isinstance(call.prompt, Conversation) else "generate"
        raise Unsupported(f'"{call.model}" does not support {task}', field="model")
    options = options_of(model, settings, call.options, call.options_path)
    draft, draft_field = _draft(model, options, call, store)
    check_media(call, model)
    call, vain = possible_thinking(call, model)
    prompt, unused = prompt_of(call, model)
    request = _request(call, model, options, prompt, uses_draft_model=draft is not None)
    ignored = (*options.ignored, *unused, *vain)
    return CallPlan(model, model_spec(model, options, draft), request, ignored, draft_field, _gpu_fields(call))


def _gpu_fields(call: Call) -> tuple[str, ...]:
    # 0 and negative numbers ask for what happens without a GPU anyway.
    wishes = {name: call.options.get(name) for name in _OF_GPUS}
    asked = (name for name, wish in wishes.items() if wish and not (isinstance(wish, int | float) and wish < 0))
    return tuple(f"{call.options_path}{name}" for name in asked)


def _request(
    call: Call, model: StoredModel, options: Resolved, prompt: Prompt, *, uses_draft_model: bool
) -> ChatRequest:
    completion = call.prompt if isinstance(call.prompt, Completion) else None
    return ChatRequest(
        prompt,
        _sampling(options, call.variant),
        Limits(
            num_predict=options.num_predict,
            num_ctx=options.num_ctx,
            truncate=call.truncate,
            shift=call.shift,
            num_keep=options.num_keep,
            num_draft=options.draft_num_predict,
            uses_draft_model=uses_draft_model,
        ),
        options.stop,
        (completion and completion.context) or (),
        wants_context=completion is not None and not completion.raw,
        constraint=call.constraint,
        logit_bias=call.logit_bias,
        logprobs=call.logprobs,
        echo=call.echo,
        tool_use=call.tool_use,
        named_tool=call.named_tool,
        parallel_calls=call.parallel_calls,
        priority=call.priority,
        cache_scope=call.cache_scope,
        deterministic=options.deterministic,
        adapters=adapters_of(model, options.lora_scales, f"{call.options_path}lora_scales"),
    )


def _sampling(options: Resolved, variant: int) -> SamplingParams:
    seed = options.sampling.seed
    if seed is None or not variant:
        return options.sampling
    return dataclasses.replace(options.sampling, seed=(seed + variant) % _SEEDS)


def _draft(model: StoredModel, options: Resolved, call: Call, store: ModelStore) -> tuple[DraftWish | None, str]:
    """The draft model that is wanted, and what named it. Raises ModelNotFound, Unsupported, or as loading does."""
    if options.draft_model is None:
        return own_draft(model), ""
    if not options.draft_model:
        return None, ""
    field = f"{call.options_path}draft_model" if call.options.get("draft_model") else "PARAMETER draft_model"
    return named_draft(find_model(store, options.draft_model), field), field

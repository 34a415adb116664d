"""The prompt of a call: what of its wishes the model can fulfil, and its words with those that the model brings."""

from __future__ import annotations

import dataclasses

from registry.stored_model import StoredModel
from runner.calls import Call, Completion, Conversation
from runner.chat.media import MediaKind
from runner.chat.types import ChatPrompt, InsertPrompt, Message, TextPrompt, TokenPrompt
from runner.errors import InvalidRequest, Unsupported
from runner.model_messages import conversation, own_messages, own_template, system_message

Prompt = ChatPrompt | TextPrompt | TokenPrompt | InsertPrompt


def check_media(call: Call, model: StoredModel) -> None:
    """Raise Unsupported for what the model cannot take, before it is loaded for that."""
    abilities = model.capabilities() if call.media else ()
    for medium in call.media:
        ability = "vision" if medium.kind is MediaKind.IMAGE else "audio"
        if ability not in abilities:
            raise Unsupported(
                f'"{call.model}" does not support {ability}; models that do have it among the capabilities '
                "that `puna show` tells, and come with a projector.",
                field=medium.field,
            )


def possible_thinking(call: Call, model: StoredModel) -> tuple[Call, tuple[str, ...]]:
    """The call without thinking where the model has none, and what was let go. Raises Unsupported."""
    if not (call.thinking or call.effort):
        return call, ()
    if "thinking" in model.capabilities():
        return call, (call.thinking_field,) if call.thinking and _is_past_thinking(call) else ()
    if call.thinking and not call.may_think_in_vain:
        raise Unsupported(f'"{call.model}" does not support thinking', field=call.thinking_field)
    wishes = {call.thinking_field: call.thinking, call.effort_field or call.thinking_field: call.effort}
    vain = tuple(field for field, wish in wishes.items() if wish)
    return dataclasses.replace(call, thinking=None, effort=None), vain


def _is_past_thinking(call: Call) -> bool:
    """Whether the answer is begun already, so that thoughts would come too late."""
    asked = call.prompt
    return isinstance(asked, Conversation) and asked.continues and bool(asked.messages[-1].content)


def prompt_of(call: Call, model: StoredModel) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt, and what of the model or the call has no place in it. Raises InvalidRequest or Unsupported."""
    if isinstance(call.prompt, Conversation):
        return _conversation(call, call.prompt, model)
    if call.prompt.raw:
        return _raw(call.prompt), _wish_for_thinking(call)
    if call.prompt.suffix:
        return _insertion(call, call.prompt, model)
    return _completion(call, call.prompt, model)


def _conversation(call: Call, asked: Conversation, model: StoredModel) -> tuple[Prompt, tuple[str, ...]]:
    template, unused = own_template(model)
    messages = conversation(model, asked.messages)
    return ChatPrompt(messages, template, call.thinking, asked.tools, call.effort, continues=asked.continues), unused


def _raw(asked: Completion) -> Prompt:
    if asked.template or asked.system or asked.context is not None:
        raise InvalidRequest("raw mode does not support template, system, or context")
    if asked.suffix:
        raise InvalidRequest("raw mode does not support suffix", "suffix")
    return TokenPrompt(asked.tokens) if asked.tokens else TextPrompt(asked.prompt, asked.media)


def _insertion(call: Call, asked: Completion, model: StoredModel) -> tuple[Prompt, tuple[str, ...]]:
    template, unused = _template(asked, model)
    if asked.system:
        raise Unsupported("A suffix and a system text do not go together.", field="system")
    if not asked.template and (template is None or "insert" not in model.capabilities()):
        # Perhaps the model has tokens for it; the worker knows.
        if asked.media:
            raise Unsupported("A suffix and images do not go together.", field=asked.media[0].field)
        if asked.context:
            raise Unsupported("A suffix and a context do not go together.", field="context")
        return InsertPrompt(asked.prompt, asked.suffix), _wish_for_thinking(call)
    message = Message("user", asked.prompt, media=asked.media)
    return ChatPrompt((message,), template, call.thinking, suffix=asked.suffix), unused


def _wish_for_thinking(call: Call) -> tuple[str, ...]:
    """The field that asks for thoughts, of a call whose prompt has no template to ask for them."""
    return (call.thinking_field,) if call.thinking else ()


def _completion(call: Call, asked: Completion, model: StoredModel) -> tuple[Prompt, tuple[str, ...]]:
    template, unused = _template(asked, model)
    if template is not None or model.metadata().chat_template:
        return ChatPrompt(_messages(asked, model), template, call.thinking, effort=call.effort), unused
    if asked.system:
        raise Unsupported(f"{model.name.short} has no chat template that would place a system text.", field="system")
    placeless = {"SYSTEM": model.system, "MESSAGE": model.messages}
    return TextPrompt(asked.prompt, asked.media), (*unused, *(name for name, value in placeless.items() if value))


def _template(asked: Completion, model: StoredModel) -> tuple[str | None, tuple[str, ...]]:
    return (asked.template, ()) if asked.template else own_template(model)


def _messages(asked: Completion, model: StoredModel) -> tuple[Message, ...]:
    return (
        *system_message(model.system if asked.system is None else asked.system),
        *(own_messages(model) if asked.context is None else ()),
        Message("user", asked.prompt, media=asked.media),
    )

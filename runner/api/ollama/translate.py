"""The Ollama dialect: its requests as calls and recipes. Pure functions."""

from __future__ import annotations

import dataclasses

from registry.digest import Digest
from registry.errors import InvalidName, RegistryError
from registry.name import ModelName
from registry.recipe import Recipe
from runner.api.media_parts import at_marks
from runner.api.ollama.schema import ChatBody, CreateBody, GenerateBody
from runner.api.ollama.tools import IMAGE_MARK, choose_tools, read_messages, read_tools
from runner.api.sampling import json_constraint, one_constraint, wanted_logprobs
from runner.calls import Call, Completion, Conversation
from runner.chat.types import is_begun
from runner.errors import InvalidRequest
from runner.sampling import Constraint


def chat_call(body: ChatBody, request_id: str) -> Call:
    tools = read_tools(body.tools or ())
    tool_use, named_tool = choose_tools(tools, body.tool_choice)
    messages = read_messages(body.messages or ())
    prompt = Conversation(messages=messages, tools=tools, continues=is_begun(messages))
    return dataclasses.replace(_call(body, request_id, prompt), tool_use=tool_use, named_tool=named_tool)


def generate_call(body: GenerateBody, request_id: str) -> Call:
    text, media = at_marks(body.prompt or "", body.images or (), "images", IMAGE_MARK)
    prompt = Completion(
        prompt=text,
        system=body.system,
        template=body.template,
        raw=bool(body.raw),
        context=None if body.context is None else tuple(body.context),
        suffix=body.suffix or "",
        media=media,
    )
    return _call(body, request_id, prompt)


def _call(body: ChatBody | GenerateBody, request_id: str, prompt: Conversation | Completion) -> Call:
    """What both have in common."""
    level = body.think if isinstance(body.think, str) else None
    return Call(
        request_id=request_id,
        model=body.model,
        prompt=prompt,
        options=body.options or {},
        keep_alive=body.keep_alive,
        thinking=None if body.think is None else bool(body.think),
        effort="high" if level == "max" else level,
        truncate=bool(body.truncate),
        shift=bool(body.shift),
        constraint=_constraint(body),
        logprobs=wanted_logprobs(body.logprobs, body.top_logprobs),
        receipt=bool(body.receipt),
    )


def _constraint(body: ChatBody | GenerateBody) -> Constraint | None:
    wants_json = body.format is not None
    schema = None if body.format == "json" else body.format
    return one_constraint(json_constraint(schema, "format") if wants_json else None, body.grammar)


def recipe(body: CreateBody) -> Recipe:
    """What to create. Raises InvalidRequest for names and digests that cannot be."""
    return Recipe(
        name=model_name(body.model_name),
        from_model=model_name(body.from_, "from") if body.from_ else None,
        files=_files(body.files, "files"),
        adapters=_files(body.adapters, "adapters"),
        draft_files=_files(body.draft_files, "draft_files"),
        quantize=_quantize(body),
        draft_quantize=body.draft_quantize or None,
        imatrix=_digest(body.imatrix, "imatrix") if body.imatrix else None,
        calibration=_digest(body.calibration, "calibration") if body.calibration else None,
        template=body.template,
        system=body.system,
        parameters=body.parameters or {},
        messages=[(message.role, message.content) for message in body.messages or ()],
        licenses=body.license or (),
        renderer=body.renderer or None,
        parser=body.parser or None,
        requires=body.requires or None,
    )


def model_name(text: str, field: str = "model") -> ModelName:
    """A model's name, as a request gives it. Raises InvalidRequest."""
    try:
        return ModelName.parse(text)
    except InvalidName as error:
        raise InvalidRequest(f"invalid model name: {error.message}", field) from None


def _quantize(body: CreateBody) -> str | None:
    if body.quantize and body.quantization and body.quantize != body.quantization:
        raise InvalidRequest("quantize and quantization differ; send quantize alone.", "quantization")
    return body.quantize or body.quantization or None


def _files(given: dict[str, str] | None, field: str) -> dict[str, Digest]:
    return {path: _digest(digest, f"{field}.{path}") for path, digest in (given or {}).items()}


def _digest(text: str, field: str) -> Digest:
    try:
        return Digest.parse(text)
    except RegistryError:
        raise InvalidRequest("invalid digest format", field) from None

"""The Modelfile that makes an installed model again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from registry.errors import RegistryError
from registry.manifest import ADAPTER_LAYER, DRAFT_LAYER, MODEL_LAYER, PROJECTOR_LAYER
from registry.modelfile import ROLES, Modelfile
from registry.parameters import DRAFT_PARAMETER, ParameterValue, check_parameter
from registry.prompt_formats import check_parser, check_renderer
from registry.stored_model import StoredModel


def modelfile_of(model: StoredModel, files: Mapping[str, Sequence[str]]) -> tuple[Modelfile, tuple[str, ...]]:
    """A recipe that `parse_modelfile` takes, and in words what of the model it cannot tell.

    `files` are the names under which it speaks of the model's files, by the type of their layer.
    """
    config = model.config
    left_out: list[str] = []
    parameters = _parameters(model, left_out)
    drafts = list(files.get(DRAFT_LAYER, ()))
    if (named_draft := parameters.pop(DRAFT_PARAMETER, None)) is not None:
        if drafts:
            left_out.append(f"the draft model in its files, in the place of which {named_draft!a} is used")
        drafts = [str(named_draft)]
    messages = [turn for turn in model.messages if turn[0] in ROLES]
    if len(messages) < len(model.messages):
        left_out.append("messages of other roles than system, user and assistant")
    template = model.template
    if not _is_honoured(check_renderer, config.renderer):
        left_out.append(f"the renderer {config.renderer!a}, and the template that stands in for it")
        template = None
    is_parsed_here = _is_honoured(check_parser, config.parser)
    if not is_parsed_here:
        left_out.append(f"the parser {config.parser!a}")
    first, *others = [*files[MODEL_LAYER], *files.get(PROJECTOR_LAYER, ())]
    modelfile = Modelfile(
        from_=first,
        also_from=others,
        adapters=list(files.get(ADAPTER_LAYER, ())),
        drafts=drafts,
        template=template,
        system=model.system,
        parameters=parameters,
        messages=messages,
        licenses=list(model.licenses),
        parser=config.parser or None if is_parsed_here else None,
        requires=config.required_puna or None,
    )
    return modelfile, tuple(left_out)


def _parameters(model: StoredModel, left_out: list[str]) -> dict[str, ParameterValue]:
    """Those that can be written down and read again."""
    known: dict[str, ParameterValue] = {}
    for name, value in model.parameters.items():
        try:
            known[name] = check_parameter(name, value)
        except RegistryError:
            left_out.append(f"the parameter {name} {json.dumps(value)[:200]}")
    return known


def _is_honoured(check: Callable[[str], str], name: str) -> bool:
    try:
        return not name or bool(check(name))
    except RegistryError:
        return False

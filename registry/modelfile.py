"""Modelfiles: the recipe for a model, parsed and printed."""

from __future__ import annotations

from dataclasses import dataclass, field

from registry.errors import InvalidRequest, Unsupported
from registry.modelfile_text import Instruction, read_instructions, write_instruction
from registry.parameters import DRAFT_PARAMETER, REMOVED, ParameterValue, parse_parameter
from registry.prompt_formats import check_parser, check_renderer
from registry.requirement import parse_version

ROLES = ("system", "user", "assistant")


@dataclass
class Modelfile:
    """A recipe. `parameters` hold checked values; `stop` is the list of all its lines."""

    from_: str
    """The base: a path, or a model's name."""
    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    template: str | None = None
    """Jinja, or Go's template language."""
    system: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)
    """Role and text of each turn."""
    licenses: list[str] = field(default_factory=list)
    also_from: list[str] = field(default_factory=list)
    """Further FROM lines: files that belong to the base, such as its other shards or a projector."""
    adapters: list[str] = field(default_factory=list)
    """Paths of LoRA files or folders."""
    drafts: list[str] = field(default_factory=list)
    """Paths of a draft model's files, or the name of one that is installed."""
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    """The least version of Puna, without a `v`."""
    ignored: list[str] = field(default_factory=list)
    """What a reader should be told of: options that no longer do anything, and were left out."""
    lines: dict[str, list[int]] = field(default_factory=dict, compare=False)
    """Where each instruction stood, by its name in lower case; for complaints about what it names."""
    template_line: int | None = field(default=None, compare=False)
    """Where the template's own first line stood."""

    def render(self) -> str:
        """The text of this recipe; parsing it gives the recipe back."""
        written = [("FROM", self.from_)]
        written += [("FROM", text) for text in self.also_from]
        written += [("ADAPTER", text) for text in self.adapters]
        written += [("DRAFT", text) for text in self.drafts]
        single = {
            "TEMPLATE": self.template,
            "RENDERER": self.renderer,
            "PARSER": self.parser,
            "SYSTEM": self.system,
            "REQUIRES": self.requires,
        }
        written += [(name, text) for name, text in single.items() if text is not None]
        for name, value in self.parameters.items():
            texts = value if isinstance(value, list) else [_parameter_text(value)]
            written += [(f"PARAMETER {name}", text) for text in texts]
        written += [(f"MESSAGE {role}", text) for role, text in self.messages]
        written += [("LICENSE", text) for text in self.licenses]
        return "".join(f"{write_instruction(head, text)}\n" for head, text in written)


def parse_modelfile(text: str) -> Modelfile:
    """Read a recipe. Raises InvalidRequest or Unsupported, with the line's number."""
    modelfile = Modelfile(from_="")
    for instruction in read_instructions(text):
        try:
            _apply(modelfile, instruction)
        except (InvalidRequest, Unsupported) as error:
            line = instruction.line
            raise type(error)(f"(line {line}): {error.message}", **{**error.facts, "line": line}) from None
        modelfile.lines.setdefault(instruction.name, []).append(instruction.line)
    if not modelfile.from_:
        raise InvalidRequest("no FROM line")
    if modelfile.drafts and DRAFT_PARAMETER in modelfile.parameters:
        line = modelfile.lines["draft"][0]
        raise InvalidRequest(
            f"(line {line}): DRAFT and PARAMETER {DRAFT_PARAMETER} both say which model guesses ahead; keep one",
            line=line,
        )
    return modelfile


def _apply(modelfile: Modelfile, instruction: Instruction) -> None:
    value = instruction.value
    match instruction.name:
        case "from" if modelfile.from_:
            modelfile.also_from.append(_needed(instruction))
        case "from":
            modelfile.from_ = _needed(instruction)
        case "adapter":
            modelfile.adapters.append(_needed(instruction))
        case "draft":
            modelfile.drafts.append(_needed(instruction))
            if value in (modelfile.from_, *modelfile.also_from):
                raise InvalidRequest(f"DRAFT must not reference the same local path as FROM: {value}")
        case "template":
            modelfile.template, modelfile.template_line = value, instruction.value_line
        case "system":
            modelfile.system = value
        case "license":
            modelfile.licenses.append(value)
        case "renderer":
            modelfile.renderer = check_renderer(_needed(instruction))
        case "parser":
            modelfile.parser = check_parser(_needed(instruction))
        case "requires":
            modelfile.requires = str(parse_version(value))
        case "message":
            if instruction.word not in ROLES:
                raise InvalidRequest('message role must be one of "system", "user", or "assistant"')
            modelfile.messages.append((instruction.word, value))
        case _:
            _apply_parameter(modelfile, instruction.word.lower(), value)


def _apply_parameter(modelfile: Modelfile, name: str, text: str) -> None:
    if name in REMOVED:
        modelfile.ignored.append(f"parameter {name} is deprecated and does nothing")
        return
    value = parse_parameter(name, text)
    earlier = modelfile.parameters.get(name)
    if isinstance(value, list) and isinstance(earlier, list):
        earlier.extend(value)
    else:
        modelfile.parameters[name] = value


def _needed(instruction: Instruction) -> str:
    if not instruction.value.strip():
        raise InvalidRequest(f"{instruction.name.upper()} needs a value")
    return instruction.value


def _parameter_text(value: float | bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

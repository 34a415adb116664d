"""Modelfiles: the recipe for a model, parsed and printed."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from registry.errors import InvalidRequest, Unsupported
from registry.parameters import REMOVED, ParameterValue, parse_parameter

ROLES = ("system", "user", "assistant")

_INSTRUCTIONS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
_NOT_BUILT = frozenset({"adapter", "draft", "renderer", "parser", "requires"})
_BLANKS = " \t"
_GO_ACTION = re.compile(
    r"""\{\{-?\s*(?:\.|\$|/\*|if\s|else\s+if\s|(?:range|with|json|template|block|define)\s+[.$"])"""
)


@dataclass
class Modelfile:
    """A recipe. `parameters` hold checked values; `stop` is the list of all its lines."""

    from_: str
    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)
    """Role and text of each turn."""
    licenses: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """What a reader should be told of: options that no longer do anything, and were left out."""
    from_line: int = field(default=1, compare=False)

    def render(self) -> str:
        """The text of this recipe; parsing it gives the recipe back, with newlines as line ends.

        The grammar has no way to write a text in which a line other than the last ends with three
        quotation marks. Such a text is left out, and a comment in its place says so.
        """
        lines = [_line("FROM", self.from_)]
        if self.template is not None:
            lines.append(_line("TEMPLATE", self.template))
        if self.system is not None:
            lines.append(_line("SYSTEM", self.system))
        for name, value in self.parameters.items():
            texts = value if isinstance(value, list) else [str(value).lower()]
            lines.extend(_line(f"PARAMETER {name}", text) for text in texts)
        lines.extend(_line(f"MESSAGE {role}", text) for role, text in self.messages)
        lines.extend(_line("LICENSE", text) for text in self.licenses)
        return "\n".join(lines) + "\n"


def decode_modelfile(content: bytes) -> str:
    """The text of a Modelfile on disk: UTF-8, or UTF-16 with a byte-order mark. Raises InvalidRequest."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The Modelfile is not UTF-8 text (byte {error.start}).") from None


def parse_modelfile(text: str) -> Modelfile:
    """Read a recipe. Raises InvalidRequest or Unsupported, with the line's number."""
    modelfile = Modelfile(from_="")
    for line, name, rest in _instructions(text):
        try:
            _apply(modelfile, name, rest)
            if name == "from":
                modelfile.from_line = line
        except (InvalidRequest, Unsupported) as error:
            raise type(error)(f"(line {line}): {error.message}", **{**error.facts, "line": line}) from None
    if not modelfile.from_:
        raise InvalidRequest("no FROM line")
    return modelfile


def is_go_template(template: str) -> bool:
    """Whether a template is written in Go's template language; such actions are never valid Jinja."""
    return _GO_ACTION.search(template) is not None


def _apply(modelfile: Modelfile, name: str, value: str) -> None:
    if name in _NOT_BUILT:
        raise Unsupported(f"{name.upper()} is not supported yet")
    if name == "from":
        if modelfile.from_:
            raise Unsupported("a second FROM is not supported yet; a model is made of one file or one other model")
        modelfile.from_ = _needed(_unquoted(value), "FROM")
    elif name == "template":
        modelfile.template = _unquoted(value)
        if is_go_template(modelfile.template):
            raise Unsupported(
                "this TEMPLATE is written in Go's template language, which is not supported yet; write it in Jinja, "
                "or leave it out to use the template in the model's file"
            )
    elif name == "system":
        modelfile.system = _unquoted(value)
    elif name == "license":
        modelfile.licenses.append(_unquoted(value))
    elif name == "message":
        role, text = _split(value, "MESSAGE needs a role and a text")
        if role not in ROLES:
            raise InvalidRequest('message role must be one of "system", "user", or "assistant"')
        modelfile.messages.append((role, _unquoted(text)))
    else:
        _apply_parameter(modelfile, *_split(value, "PARAMETER needs a name and a value"))


def _apply_parameter(modelfile: Modelfile, name: str, text: str) -> None:
    name = name.lower()
    if name in REMOVED:
        modelfile.ignored.append(f"parameter {name} is deprecated and does nothing")
        return
    value = parse_parameter(name, _unquoted(text))
    earlier = modelfile.parameters.get(name)
    if isinstance(value, list) and isinstance(earlier, list):
        earlier.extend(value)
    else:
        modelfile.parameters[name] = value


def _instructions(text: str) -> list[tuple[int, str, str]]:
    """Line number, instruction in lower case and raw value of each; quoted values may span lines."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    found = []
    index = 0
    while index < len(lines):
        number = index + 1
        line = lines[index].strip(_BLANKS)
        index += 1
        if not line or line.startswith("#"):
            continue
        name, rest = _head(lines[number - 1].lstrip(_BLANKS), number)
        opening = _opening(name, rest)
        if opening is not None:
            prefix, value = opening
            while not _is_closed(value):
                if index == len(lines):
                    raise InvalidRequest(f"(line {number}): unexpected EOF: the quoted text has no end", line=number)
                value += "\n" + lines[index]
                index += 1
            rest = prefix + value
        found.append((number, name, rest.strip()))
    return found


def _head(line: str, number: int) -> tuple[str, str]:
    match = re.match(r"([^ \t]+)[ \t]+(.*)", line, re.DOTALL)
    name = match.group(1).lower() if match else ""
    if match is None or name not in _INSTRUCTIONS:
        names = ", ".join(f'"{one}"' for one in _INSTRUCTIONS[:-1])
        raise InvalidRequest(f'(line {number}): command must be one of {names}, or "requires"', line=number)
    return name, match.group(2)


def _opening(name: str, rest: str) -> tuple[str, str] | None:
    """Where a quoted value opens: the words before it, and the value so far."""
    prefix, value = "", rest.lstrip(_BLANKS)
    if name in ("parameter", "message"):
        match = re.match(r"([^ \t]+[ \t]+)(.*)", value, re.DOTALL)
        if match is None:
            return None
        prefix, value = match.groups()
    return (prefix, value) if value.startswith('"') else None


def _is_closed(value: str) -> bool:
    mark = _mark(value)
    text = value.rstrip()
    return len(text) >= 2 * len(mark) and text.endswith(mark)


def _mark(value: str) -> str:
    return '"""' if value.startswith('"""') else '"'


def _split(value: str, complaint: str) -> tuple[str, str]:
    match = re.fullmatch(r"([^ \t]+)[ \t]+(.+)", value, re.DOTALL)
    if match is None:
        raise InvalidRequest(complaint)
    return match.group(1), match.group(2)


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    mark = _mark(value)
    return value[len(mark) : -len(mark)]


def _needed(value: str, name: str) -> str:
    if not value.strip():
        raise InvalidRequest(f"{name} needs a value")
    return value


def _line(head: str, text: str) -> str:
    if text and text == text.strip() and "\n" not in text and not text.startswith('"'):
        return f"{head} {text}"
    if any(line.rstrip().endswith('"""') for line in text.split("\n")[:-1]):
        return f"# {head} is left out: a Modelfile cannot hold its text."
    mark = '"""' if '"' in text else '"'
    return f"{head} {mark}{text}{mark}"

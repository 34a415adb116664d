"""RENDERER and PARSER: the names there are, and those that are honoured here."""

from __future__ import annotations

from registry.errors import InvalidRequest, Unsupported

_BOTH = frozenset(
    {
        "cogito",
        "cohere",
        "functiongemma",
        "gemma4",
        "glimmer",
        "glm-4.7",
        "glm-ocr",
        "laguna",
        "lfm2",
        "lfm2-thinking",
        "nemotron-3-nano",
        "nemotron-3.5-nano",
        "olmo3",
        "olmo3-think",
        "ornith",
        "poolside-v1",
        "qwen3-coder",
        "qwen3-vl-instruct",
        "qwen3-vl-thinking",
        "qwen3.5",
    }
)
RENDERERS = _BOTH | {
    "deepseek3.1",
    "gemma4-large",
    "gemma4-small",
    "olmo3-32b-think",
    "olmo3.1",
    "qwen3.8",
}
PARSERS = _BOTH | {
    "deepseek3",
    "gemma4-no-thinking",
    "harmony",
    "ministral",
    "passthrough",
    "qwen3",
    "qwen3-thinking",
}
_HONOURED_PARSERS = frozenset({"passthrough"})
"""Text goes to the client as it comes; that needs no parser."""


def check_renderer(name: str) -> str:
    """Raises InvalidRequest for a name that nobody knows, Unsupported for the others: none is built in."""
    if name not in RENDERERS:
        raise InvalidRequest(f"RENDERER {name[:100]!a} is unknown; known are {', '.join(sorted(RENDERERS))}")
    raise Unsupported(
        f"RENDERER {name} is not built in; say how prompts are made with TEMPLATE, "
        "or leave both out to use the template in the model's file"
    )


def check_parser(name: str) -> str:
    """The name, when it is honoured. Raises InvalidRequest for one that nobody knows, else Unsupported."""
    if name not in PARSERS:
        raise InvalidRequest(f"PARSER {name[:100]!a} is unknown; known are {', '.join(sorted(PARSERS))}")
    if name not in _HONOURED_PARSERS:
        raise Unsupported(f"PARSER {name} is not built in; honoured here is {', '.join(sorted(_HONOURED_PARSERS))}")
    return name

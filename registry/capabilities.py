"""What a model can do, worked out from its files' headers and its template."""

from __future__ import annotations

import re
from collections.abc import Sequence

from registry.gguf_metadata import GgufMetadata
from registry.parts import projects
from registry.template_language import is_go_template

_GO_FIELD = re.compile(r"\{\{[^}]*\.(Tools|Suffix|Thinking)\b")
_RANK_POOLING = 4
_FILL_IN_TOKENS = (("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle"))
"""The tokens that stand around a gap, each with its older name."""
_HARMONY_FAMILIES = frozenset({"gptoss", "gpt-oss"})


def capabilities(
    metadata: GgufMetadata, template: str | None, projectors: Sequence[GgufMetadata] = ()
) -> tuple[str, ...]:
    """In the order clients are shown them. `template` is the model's own, next to the one in its file."""
    found = [_task(metadata)]
    found += [what for what in ("vision", "audio") if _perceives(what, metadata, projectors)]
    go_fields = set(_GO_FIELD.findall(template)) if template and is_go_template(template) else set()
    jinja = [text for text in (template, metadata.chat_template) if text and not is_go_template(text)]
    if "Tools" in go_fields or any("tools" in text or "tool_call" in text for text in jinja):
        found.append("tools")
    if "Suffix" in go_fields or (found[0] == "completion" and _fills_in(metadata)):
        found.append("insert")
    if "Thinking" in go_fields or any(_thinks(text) for text in jinja) or _is_harmony(metadata, template):
        found.append("thinking")
    return tuple(found)


def _task(metadata: GgufMetadata) -> str:
    pooling = metadata.values.get(f"{metadata.architecture}.pooling_type")
    if pooling is None:
        return "completion"
    return "rerank" if pooling == _RANK_POOLING else "embedding"


def _perceives(what: str, metadata: GgufMetadata, projectors: Sequence[GgufMetadata]) -> bool:
    is_built_in = f"{metadata.architecture}.{what}.block_count" in metadata.values
    return is_built_in or any(projects(what, projector) for projector in projectors)


def _fills_in(metadata: GgufMetadata) -> bool:
    keys = [[f"tokenizer.ggml.{name}_token_id" for name in names] for names in _FILL_IN_TOKENS]
    return all(any(key in metadata.values for key in alternatives) for alternatives in keys)


def _thinks(template: str) -> bool:
    return "</think>" in template and ("<think>" in template or ".split('</think>')" in template)


def _is_harmony(metadata: GgufMetadata, template: str | None) -> bool:
    text = template or metadata.chat_template or ""
    return metadata.architecture in _HARMONY_FAMILIES and "<|start|>" in text and "<|end|>" in text

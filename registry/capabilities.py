"""What a model can do, worked out from its file's header and its template."""

from __future__ import annotations

import re

from registry.gguf_metadata import GgufMetadata

_GO_FIELD = re.compile(r"\{\{[^}]*\.(Tools|Suffix|Thinking)\b")


def capabilities(metadata: GgufMetadata, template: str | None) -> tuple[str, ...]:
    """In the order clients are shown them. `template` is the model's own, next to the one in its file."""
    architecture, values = metadata.architecture, metadata.values
    found = ["embedding" if f"{architecture}.pooling_type" in values else "completion"]
    if f"{architecture}.vision.block_count" in values:
        found.append("vision")
    if f"{architecture}.audio.block_count" in values:
        found.append("audio")
    go_fields = set(_GO_FIELD.findall(template or ""))
    jinja = [text for text in (template, metadata.chat_template) if text and not _GO_FIELD.search(text)]
    if "Tools" in go_fields or any("tools" in text or "tool_call" in text for text in jinja):
        found.append("tools")
    if "Suffix" in go_fields:
        found.append("insert")
    if "Thinking" in go_fields or any(_thinks(text) for text in jinja):
        found.append("thinking")
    return tuple(found)


def _thinks(template: str) -> bool:
    return "</think>" in template and ("<think>" in template or ".split('</think>')" in template)

"""The tags that a model thinks between, by its chat template."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    opening: str
    closing: str


KNOWN = (
    ThinkingTags("<think>", "</think>"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingTags("[THINK]", "[/THINK]"),
    ThinkingTags("<seed:think>", "</seed:think>"),
    ThinkingTags("<|channel>thought", "<channel|>"),
    ThinkingTags("<thought>", "</thought>"),
)


def find_thinking_tags(template: str) -> ThinkingTags | None:
    """The tags of a template whose model can think; None when it has none. The closing one is the sure sign."""
    return next((tags for tags in KNOWN if tags.closing in template), None)


def begins_thinking(prompt: str, tags: ThinkingTags, begun: str = "") -> bool:
    """Whether the prompt ends inside a thinking block, so that the answer's first words are thoughts.

    `begun` is what the prompt already holds of the answer.
    """
    return prompt.rstrip().endswith(tags.opening) or begun.rfind(tags.opening) > begun.rfind(tags.closing)

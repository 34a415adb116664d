"""The terminals of a call's grammar, for one vocabulary, in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

ANY_TEXT = "/(?s:.*)/"


class Terms:
    """Writes texts; those that are tokens of their own have to be asked for by number."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        """`tokens` has the format's markers that match no text of the vocabulary."""
        self._tokens = tokens
        longest_first = sorted(tokens, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if tokens else None

    def literal(self, text: str) -> str:
        """An expression for exactly this text."""
        return " ".join(
            f"<[{self._tokens[part]}]>" if part in self._tokens else json.dumps(part) for part in self._parts(text)
        )

    def closed(self, rule: str, pattern: str, end: str) -> tuple[str, tuple[str, ...]]:
        """An expression for the shortest text that `pattern`, an expression of regexes, and then `end` match.

        With it come the rules it needs; their names are made of `rule`.
        """
        text = f"TEXT_{rule.upper()}"
        if self._parts(end)[0] in self._tokens:
            return f"{text} {self.literal(end)}", (f"{text}: {pattern}",)
        return f"{rule}_text", (f"{text}: {pattern}", f"{rule}_text[suffix={json.dumps(end)}]: {text}")

    def _parts(self, text: str) -> list[str]:
        parts = [part for part in self._split.split(text) if part] if self._split else [text]
        return parts or [""]

"""What is asked. Every prompt begins with a number of its own, so that no server finds it in a cache."""

from __future__ import annotations

import itertools
from typing import Any

Json = dict[str, Any]

TOPICS = (
    "the sea", "a lighthouse", "old maps", "mountain weather", "bread", "trains", "a violin maker", "winter gardens",
    "the first telescope", "desert caravans", "letters", "a night market", "river boats", "clocks", "paper", "llamas",
)  # fmt: skip
_WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state",
    "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system",
    "program", "question", "work", "government", "number", "night", "point", "home", "water", "room", "mother", "area",
    "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue",
)  # fmt: skip
PASSAGE = """\
The harbour master keeps a book in which every boat is written down: its name, its owner, the hour of its coming and
the cargo it carries. On Monday the Swallow brought forty barrels of salt. On Tuesday the Marigold brought nine crates
of oranges and left with the tide. On Wednesday nobody came, because of the storm. On Thursday the Swallow came back
for repairs to her mast, and the carpenter was paid eleven crowns. On Friday three boats came at once, and the harbour
master wrote their names one below the other: Heron, Lantern, Good Hope.
"""

_numbers = itertools.count(1)


def story(number: int, tokens: int) -> Json:
    """A request for a text that is as long as it may be."""
    topic = TOPICS[number % len(TOPICS)]
    return chat(f"{next(_numbers)}. Write a long story about {topic}. Do not stop early.", tokens)


def shared_prefix(words: int, clients: int, tokens: int) -> list[Json]:
    """Requests of several clients with one system prompt."""
    system = f"{next(_numbers)}. You know these words: {word_list(words)}."
    return [
        chat(f"Tell me something about {TOPICS[number % len(TOPICS)]}.", tokens, system=system)
        for number in range(clients)
    ]


def long_prompt(words: int, tokens: int) -> Json:
    return chat(f"{next(_numbers)}. Continue this list: {word_list(words)}", tokens)


def conversation(words: int, turns: int, tokens: int) -> Json:
    """The last request of a long conversation: what was said before it, and one more short question."""
    messages = [{"role": "system", "content": f"{next(_numbers)}. You are a patient teacher."}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"What belongs to {TOPICS[turn % len(TOPICS)]}?"})
        messages.append({"role": "assistant", "content": word_list(words // turns)})
    messages.append({"role": "user", "content": "Thank you. And what else?"})
    return {"messages": messages, "max_tokens": tokens, "temperature": 0}


def next_turn(body: Json, answer: str) -> Json:
    """The request that follows in a conversation."""
    more = [{"role": "assistant", "content": answer}, {"role": "user", "content": "I see. Is that all?"}]
    return {**body, "messages": [*body["messages"], *more]}


def repetition(passages: int) -> str:
    """Plain text that goes on with what stands in it already, so clearly that even a small model knows."""
    return (
        f"Note {next(_numbers)}, several times over.\n\n"
        + "\n".join(PASSAGE for _ in range(passages))
        + "\nThe harbour"
    )


def chat(text: str, tokens: int, system: str | None = None) -> Json:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return {"messages": messages, "max_tokens": tokens, "temperature": 0}


def word_list(count: int) -> str:
    """Short words, each of which is one token for most vocabularies, in an order that does not repeat soon."""
    size = len(_WORDS)
    return " ".join(_WORDS[(number * 7 + number // size * 3) % size] for number in range(count))

"""Names for models that only a file's name is known of, and names of files for models."""

from __future__ import annotations

import re
import unicodedata

from registry.errors import InvalidName
from registry.name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName
from registry.sources import quantization
from registry.sources.gguf_choice import shard_of

MAX_PART = 80
"""Characters that a part of a model's name may have."""


def name_of_file(file_name: str, *, before: str = "") -> ModelName:
    """A possible name, whatever a file is called: small letters, and the quantization that its name tells as the tag.

    The shards of one model give the same name. `before` is put in front, to tell files of one name apart.
    """
    model, found = quantization.split_off(stem_of(file_name))
    text = f"{before}-{model}" if before else model
    return ModelName(DEFAULT_HOST, DEFAULT_NAMESPACE, name_part(text.lower()), found or DEFAULT_TAG)


def stem_of(file_name: str) -> str:
    """A file's name without `.gguf`, and without what numbers the shards of a model."""
    shard = shard_of(file_name)
    if shard is not None:
        return shard[0]
    return file_name[: -len(".gguf")] if file_name.lower().endswith(".gguf") else file_name


def name_part(text: str) -> str:
    """The nearest text that can be a part of a model's name: ASCII, at most 80 characters, never empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    part = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)
    part = re.sub(r"^[^A-Za-z0-9_]+", "", part)[:MAX_PART].rstrip(".-")
    if not part:
        return "model"
    try:
        ModelName(DEFAULT_HOST, DEFAULT_NAMESPACE, part, DEFAULT_TAG)
    except InvalidName:
        # A device of Windows, such as `nul`.
        return f"model-{part}"[:MAX_PART].rstrip(".-")
    return part


def file_stem(name: ModelName) -> str:
    """What the files of a model are called outside the store: possible on every system."""
    return f"{name.model}-{name.tag}" if name.tag != DEFAULT_TAG else name.model

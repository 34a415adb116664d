"""Model names: `[host/][namespace/]model[:tag]`, parsed, printed and matched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from registry.errors import InvalidName
from registry.relative_path import is_device

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
HUB_HOST = "hf.co"
HUB_HOSTS = (HUB_HOST, "huggingface.co")
"""The Hugging Face hub."""

# A host becomes the name of a folder, of at most 255 bytes, with its colon written in three where it must be.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,239}(?::[0-9]{1,5})?")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
# Owners and repositories of the hub, which has other rules.
_ON_HUB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A complete name; every part has been checked and is a safe file name on every system.

    Spelling is kept. Names that differ only in case are the same model: compare `folded`.
    """

    host: str
    namespace: str
    model: str
    tag: str

    def __post_init__(self) -> None:
        _check("host", self.host, _HOST)
        is_on_hub = self.host.lower() in HUB_HOSTS
        _check("namespace", self.namespace, _ON_HUB if is_on_hub else _NAMESPACE)
        _check("model", self.model, _ON_HUB if is_on_hub else _MODEL)
        _check("tag", self.tag, _MODEL)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read a name, filling in defaults. Raises InvalidName, which says what is wrong."""
        rest = text.strip().removeprefix("https://")
        if "://" in rest:
            raise InvalidName(f"{_shown(text)} names a scheme other than https.")
        path, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            path, tag = rest, DEFAULT_TAG
        parts = path.split("/")
        if len(parts) > 3:
            raise InvalidName(f"{_shown(text)} has more parts than host/namespace/model.")
        model = parts[-1]
        namespace = parts[-2] if len(parts) > 1 else DEFAULT_NAMESPACE
        host = parts[0] if len(parts) == 3 else DEFAULT_HOST
        return cls(host, namespace, model, tag)

    @property
    def short(self) -> str:
        """As people are shown it: defaults dropped from the left, the tag always there."""
        name = f"{self.model}:{self.tag}"
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{name}"
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{name}"
        return name

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def folded(self) -> str:
        """Equal for names that mean the same model."""
        return self.full.lower()

    @property
    def path(self) -> PurePosixPath:
        """Where its manifest lies under the store's `manifests` folder."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    def __str__(self) -> str:
        return self.short


def _check(part: str, text: str, form: re.Pattern[str]) -> None:
    if not text:
        raise InvalidName(f"The {part} of a model name is empty.")
    if not form.fullmatch(text):
        raise InvalidName(f"{_shown(text)} cannot be the {part} of a model name.")
    if text.endswith(".") or is_device(text.partition(":")[0]):
        raise InvalidName(f"{_shown(text)} cannot be the {part} of a model name: not every system can store it.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")

"""Model names: `[host/][namespace/]model[:tag]`, parsed, printed and matched; other hosts may nest namespaces."""

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

MAX_NAMESPACE = 240
"""Characters of a nested namespace in the name of its folder."""
_NESTED = "%2F"
"""Stands for the slash between the parts of a namespace, which is one folder all the same: were each part a folder, the
tag of one model could be the folder of another. No name has a `%` in it."""
_FLAT_HOSTS = (DEFAULT_HOST, *HUB_HOSTS)

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
    """Several parts with `/` between them in registries that nest."""
    model: str
    tag: str

    def __post_init__(self) -> None:
        _check("host", self.host, _HOST)
        is_on_hub = self.host.lower() in HUB_HOSTS
        parts = self.namespace.split("/")
        for part in parts:
            _check("namespace", part, _ON_HUB if is_on_hub else _NAMESPACE)
        if len(parts) > 1:
            self._check_nested()
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
        *before, model = path.split("/")
        # A long path of a file is no name: with that many parts, the first has to look like a host.
        if len(before) > 2 and not _looks_like_host(before[0]):
            raise InvalidName(f"{_shown(text)} has more parts than host/namespace/model, and begins with no host.")
        host = before.pop(0) if len(before) > 1 else DEFAULT_HOST
        return cls(host, "/".join(before) if before else DEFAULT_NAMESPACE, model, tag)

    @classmethod
    def of_path(cls, host: str, namespace: str, model: str, tag: str) -> ModelName:
        """The name that `path` was made of. Raises InvalidName for parts that none was."""
        if "/" in namespace:
            raise InvalidName(f"{_shown(namespace)} cannot be the name of a folder.")
        return cls(host, namespace.replace(_NESTED, "/"), model, tag)

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
        return PurePosixPath(self.host, self.namespace.replace("/", _NESTED), self.model, self.tag)

    def __str__(self) -> str:
        return self.short

    def _check_nested(self) -> None:
        if self.host.lower() in _FLAT_HOSTS:
            raise InvalidName(f"{_shown(self.full)} has more parts than {self.host}/namespace/model.")
        if len(self.path.parts[1]) > MAX_NAMESPACE:
            raise InvalidName(f"The namespace {_shown(self.namespace)} is too long.")


def _looks_like_host(text: str) -> bool:
    return "." in text or ":" in text or text.lower() == "localhost"


def _check(part: str, text: str, form: re.Pattern[str]) -> None:
    if not text:
        raise InvalidName(f"The {part} of a model name is empty.")
    if not form.fullmatch(text):
        raise InvalidName(f"{_shown(text)} cannot be the {part} of a model name.")
    if text.endswith(".") or is_device(text.partition(":")[0]):
        raise InvalidName(f"{_shown(text)} cannot be the {part} of a model name: not every system can store it.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")

"""Addresses of model files: told apart from names of models, and turned into a name for what they hold."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from registry.errors import InvalidName, InvalidRequest
from registry.file_naming import name_of_file
from registry.name import HUB_HOST, HUB_HOSTS, ModelName
from registry.sources.credentials import shown
from registry.sources.gguf_choice import shard_name, shard_of

_HUB_PAGE = re.compile(r"/([^/]+)/([^/]+)/(?:blob|resolve|raw)/main/([^/]+)")


@dataclass(frozen=True, slots=True)
class ModelUrl:
    """The address of a GGUF file, or of one shard of a model. Parsed once; no login is in it."""

    url: str

    @property
    def file_name(self) -> str:
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def shown(self) -> str:
        """Fit for messages: without the query, which may be a signature."""
        return shown(self.url)

    @property
    def files(self) -> tuple[str, ...]:
        """The addresses of all files of the model: itself, or every shard in order."""
        parts = urlsplit(self.url)
        folder, _, name = parts.path.rpartition("/")
        shard = shard_of(name)
        if shard is None:
            return (self.url,)
        prefix, _, count = shard
        return tuple(
            parts._replace(path=f"{folder}/{shard_name(prefix, number, count)}").geturl()
            for number in range(1, count + 1)
        )

    @property
    def suggested_name(self) -> ModelName:
        """A name for the model, from the file's."""
        return name_of_file(self.file_name)


def parse_model_url(text: str) -> ModelUrl | ModelName | None:
    """What an address means: a file, or for pages of the hub a model there; None for texts that are no address of one.

    Names of models may begin with `https://` too; an address of a file ends in `.gguf` and has no tag. Raises
    InvalidRequest for addresses of files that cannot be opened.
    """
    text = text.strip()
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return None
    parts = _split(text)
    if not parts.path.lower().endswith(".gguf") or ":" in parts.path.rpartition("/")[2]:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{shown(text)} is no address that models can be fetched from.", field="model")
    if parts.username is not None:
        raise InvalidRequest(
            f"A login in an address would be seen by others; take it out of {shown(text)}.", field="model"
        )
    return _hub_name(parts) or ModelUrl(parts._replace(fragment="").geturl())


def _hub_name(parts: SplitResult) -> ModelName | None:
    """The name of a model whose file is shown on a page of the hub, if it has one."""
    match = _HUB_PAGE.fullmatch(unquote(parts.path))
    if parts.scheme != "https" or parts.netloc.lower() not in HUB_HOSTS or match is None:
        return None
    with contextlib.suppress(InvalidName):
        return ModelName(HUB_HOST, *match.groups())
    return None


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidRequest("The address cannot be read.", field="model") from None
    return parts

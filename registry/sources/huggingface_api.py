"""The Hugging Face hub's HTTP API, as far as it is used: repositories, their files, and the search."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin

from registry.errors import ModelNotFound, SourceError, Unauthorized
from registry.sources.credentials import shown
from registry.sources.gguf_choice import ListedFile
from registry.sources.huggingface_login import HubLogin, origin_of

if TYPE_CHECKING:
    from registry.sources.web_api import Answer, WebApi

MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_PAGES = 50
MAX_TEXT_BYTES = 1024 * 1024
"""For licences, templates and the like."""

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_MAX_SIZE = 1 << 50
_EXPANDED = ("sha", "gated", "downloads", "likes", "tags", "lastModified", "gguf", "siblings")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    id: str
    """`owner/name`, as the hub spells it now."""
    commit: str
    is_gated: bool


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository that the search found. What the hub does not tell is None."""

    id: str
    files: tuple[str, ...]
    downloads: int | None = None
    likes: int | None = None
    licence: str | None = None
    is_gated: bool = False
    modified_at: str | None = None
    parameters: int | None = None
    architecture: str | None = None
    context_length: int | None = None


class Hub:
    """Asks the hub. Every method may raise SourceError, SourceUnreachable or RegistryForbidden."""

    def __init__(self, login: HubLogin, api: WebApi) -> None:
        self._login = login
        self._api = api

    async def repository(self, id: str) -> Repository:
        """The newest commit of a repository. Raises ModelNotFound or Unauthorized."""
        answer = await self._api.get(f"{self._login.endpoint}/api/models/{id}", limit=MAX_PAGE_BYTES)
        self._check(answer, id)
        document = _object(answer)
        commit, told_id = document.get("sha"), document.get("id")
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise SourceError(f"{shown(answer.url)} names no commit.")
        # After a renaming the hub answers under the new name, and only there are the files.
        is_usable = isinstance(told_id, str) and is_repository(told_id)
        return Repository(str(told_id) if is_usable else id, commit, bool(document.get("gated")))

    async def files(self, repository: Repository) -> list[ListedFile]:
        """Every file of the commit. Entries that cannot be files of a repository are passed over."""
        url: str | None = (
            f"{self._login.endpoint}/api/models/{repository.id}/tree/{repository.commit}?recursive=true&expand=false"
        )
        found: list[ListedFile] = []
        for _ in range(MAX_PAGES):
            if url is None:
                return found
            if origin_of(url) != origin_of(self._login.endpoint):
                raise SourceError(f"The list of files of {repository.id} continues on another host, {shown(url)}.")
            answer = await self._api.get(url, limit=MAX_PAGE_BYTES)
            self._check(answer, repository.id)
            found += [file for entry in _array(answer) if (file := _read_file(entry)) is not None]
            url = _next_page(answer)
        raise SourceError(f"The list of files of {repository.id} has more than {MAX_PAGES} pages.")

    async def text(self, repository: Repository, path: str) -> bytes:
        """A small file's content. Raises Unauthorized for a gated repository without leave."""
        answer = await self._api.get(self.file_url(repository, path), limit=MAX_TEXT_BYTES, accept="*/*")
        self._check(answer, repository.id)
        return answer.body

    async def check_access(self, repository: Repository, path: str) -> None:
        """Raises Unauthorized when a file of the repository would not be given out."""
        answer = await self._api.head(self.file_url(repository, path), follow=False)
        if answer.status in (401, 403):
            self._check(answer, repository.id)

    async def search(self, text: str, limit: int) -> list[HubModel]:
        """Repositories with GGUF files that match the text, the most fetched first."""
        query = [("search", text)] if text else []
        query += [("filter", "gguf"), ("sort", "downloads"), ("direction", "-1"), ("limit", str(limit))]
        query += [("expand[]", one) for one in _EXPANDED]
        url = f"{self._login.endpoint}/api/models?{urlencode(query)}"
        answer = await self._api.get(url, limit=MAX_PAGE_BYTES)
        if not answer.is_success:
            raise SourceError(f"{shown(url)} answers with status {answer.status}.", http_status=answer.status)
        return [model for entry in _array(answer)[:limit] if (model := _read_model(entry)) is not None]

    def file_url(self, repository: Repository, path: str) -> str:
        """Where a file's bytes are, at that commit for ever."""
        return f"{self._login.endpoint}/{repository.id}/resolve/{repository.commit}/{quote(path)}"

    def _check(self, answer: Answer, id: str) -> None:
        """Raises what an answer that is no success means."""
        if answer.is_success:
            return
        page = f"{self._login.endpoint}/{id}"
        code, message = answer.headers.get("X-Error-Code", ""), answer.headers.get("X-Error-Message", "")
        if code == "GatedRepo" or (answer.status == 403 and "gated" in message.lower()):
            raise _gated(page, has_token=self._login.token is not None)
        if "Invalid credentials" in message or (answer.status == 401 and self._login.token is not None):
            raise Unauthorized(
                f"{self._login.host} does not accept the token; put a valid one into HF_TOKEN, or take it away.",
                http_status=answer.status,
            )
        if answer.status == 403:
            raise Unauthorized(f"{page} may not be read with this token.", http_status=403)
        if answer.status in (401, 404):
            raise ModelNotFound(
                f"{id} is not on {self._login.host}, or it is private: then set HF_TOKEN to a token that may read it.",
                model=id,
            )
        raise SourceError(f"{shown(answer.url)} answers with status {answer.status}.", http_status=answer.status)


def is_repository(id: str) -> bool:
    """Whether a text can be `owner/name` of a repository, which leaves nothing that an address would read otherwise."""
    return bool(_REPOSITORY.fullmatch(id)) and ".." not in id


def _next_page(answer: Answer) -> str | None:
    """The address that a `Link` header names as the next page."""
    links: str = answer.headers.get("Link", "")
    for link in links.split(","):
        target, _, parameters = link.partition(";")
        if 'rel="next"' in parameters.replace(" ", "") and target.strip().startswith("<"):
            return urljoin(answer.url, target.strip().strip("<>"))
    return None


def _gated(page: str, *, has_token: bool) -> Unauthorized:
    if has_token:
        return Unauthorized(
            "The token's owner has no access to this model, whose publisher wants terms to be accepted: "
            f"open {page} with that account, accept them, and try again."
        )
    return Unauthorized(
        f"The publisher of this model wants terms to be accepted: open {page} and accept them; then save a token of "
        "that account with `hf auth login`, or start the daemon with it in HF_TOKEN, and try again."
    )


def _read_file(entry: object) -> ListedFile | None:
    if not isinstance(entry, dict) or entry.get("type") != "file":
        return None
    path, size = entry.get("path"), entry.get("size")
    lfs = entry.get("lfs")
    sha256 = None
    if isinstance(lfs, dict):
        size, sha256 = lfs.get("size", size), lfs.get("oid")
    size = _count(size)
    if not isinstance(path, str) or not _is_path(path) or size is None:
        return None
    is_digest = isinstance(sha256, str) and _SHA256.fullmatch(sha256)
    return ListedFile(path, size, str(sha256) if is_digest else None)


def _is_path(path: str) -> bool:
    """Whether it can only mean a file inside the repository, in an address as on any disk."""
    parts = path.split("/")
    return len(path) <= 1024 and path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)


def _read_model(entry: object) -> HubModel | None:
    if not isinstance(entry, dict):
        return None
    id = entry.get("id")
    if not isinstance(id, str) or not is_repository(id):
        return None
    told = entry.get("gguf")
    gguf: Mapping[str, object] = told if isinstance(told, dict) else {}
    siblings = entry.get("siblings")
    names = [one.get("rfilename") for one in siblings if isinstance(one, dict)] if isinstance(siblings, list) else []
    return HubModel(
        id=id,
        files=tuple(name for name in names if isinstance(name, str) and _is_path(name)),
        downloads=_count(entry.get("downloads")),
        likes=_count(entry.get("likes")),
        licence=_licence(entry.get("tags")),
        is_gated=bool(entry.get("gated")),
        modified_at=_text(entry.get("lastModified")),
        parameters=_count(gguf.get("total")),
        architecture=_text(gguf.get("architecture")),
        context_length=_count(gguf.get("context_length")),
    )


def _licence(tags: object) -> str | None:
    found = (
        [tag for tag in tags if isinstance(tag, str) and tag.startswith("license:")] if isinstance(tags, list) else []
    )
    return _text(found[0].removeprefix("license:")) if found else None


def _text(value: object) -> str | None:
    return value[:100] if isinstance(value, str) and value.isprintable() and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE else None


def _object(answer: Answer) -> Mapping[str, object]:
    document = _json(answer)
    if not isinstance(document, dict):
        raise SourceError(f"{shown(answer.url)} does not answer as the hub does.")
    return document


def _array(answer: Answer) -> list[object]:
    document = _json(answer)
    if not isinstance(document, list):
        raise SourceError(f"{shown(answer.url)} does not answer as the hub does.")
    return document


def _json(answer: Answer) -> object:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise SourceError(f"{shown(answer.url)} answers with something that is no JSON.") from None

"""Models of the hub: what a name is resolved to, who may have it, and what odd answers do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import (
    ModelNotFound,
    RegistryError,
    RegistryForbidden,
    SourceError,
    SourceUnreachable,
    Unauthorized,
)
from registry.manifest import (
    LICENSE_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    PROJECTOR_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
)
from registry.name import ModelName
from registry.pull_options import PullOptions
from registry.registries import Registries
from registry.sources.huggingface import HuggingFaceSource
from registry.sources.huggingface_login import DEFAULT_ENDPOINT, HubLogin, find_login
from registry.sources.resolved import HttpFile, ResolvedModel
from tests.registry.fake_hub import TOKEN, FakeHub

WEIGHTS = b"GGUF weights"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as hub:
        yield hub


class Resolver:
    """Resolves names as the daemon would, and keeps what was told."""

    def __init__(self, hub: FakeHub, home: Path) -> None:
        self.environ = {"HF_ENDPOINT": hub.endpoint}
        self.home = home
        self.notices: list[str] = []

    async def __call__(self, name: str) -> ResolvedModel:
        parsed = ModelName.parse(name)
        assert self.source.handles(parsed)
        return await self.source.resolve(parsed, self.notices.append)

    @property
    def source(self) -> HuggingFaceSource:
        return HuggingFaceSource(Registries, PullOptions(), self.environ, self.home)

    async def refusal(self, name: str) -> RegistryError:
        with pytest.raises(RegistryError) as caught:
            await self(name)
        return caught.value


@pytest.fixture
def resolve(hub: FakeHub, tmp_path: Path) -> Resolver:
    return Resolver(hub, tmp_path)


def titles(model: ResolvedModel) -> list[tuple[str, str | None]]:
    return [(file.media_type, file.title) for file in model.files]


def address(model: ResolvedModel, index: int = 0) -> str:
    [place] = model.files[index].places
    assert isinstance(place, HttpFile)
    return place.url


async def test_a_name_becomes_the_file_its_digest_and_its_size_at_one_commit(hub: FakeHub, resolve: Resolver) -> None:
    repository = hub.add("owner/repo-GGUF", {"m-Q4_K_M.gguf": WEIGHTS, "m-Q8_0.gguf": b"GGUF more", "README.md": b"x"})
    model = await resolve("hf.co/owner/repo-GGUF")
    [file] = model.files
    assert (file.media_type, file.title, file.size) == (MODEL_LAYER, "m-Q4_K_M.gguf", len(WEIGHTS))
    assert file.digest is not None and file.digest.hex == hashlib.sha256(WEIGHTS).hexdigest()
    assert address(model) == f"{hub.endpoint}/owner/repo-GGUF/resolve/{repository.sha}/m-Q4_K_M.gguf"
    assert model.manifest is None
    assert resolve.notices == []


@pytest.mark.parametrize("name", ["huggingface.co/owner/repo:q8_0", "HF.co/owner/repo:m-Q8_0.gguf"])
async def test_both_hosts_and_any_case_name_the_same(hub: FakeHub, resolve: Resolver, name: str) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS, "m-Q8_0.gguf": b"GGUF more"})
    assert titles(await resolve(name)) == [(MODEL_LAYER, "m-Q8_0.gguf")]


def test_names_of_other_hosts_are_not_the_hubs(tmp_path: Path) -> None:
    source = HuggingFaceSource(Registries, PullOptions(), {}, tmp_path)
    assert not source.handles(ModelName.parse("smollm2:135m"))
    assert not source.handles(ModelName.parse("hf.co.example.com/owner/repo"))


async def test_without_the_default_quantization_it_is_told_which_is_taken(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q8_0.gguf": WEIGHTS, "m-F16.gguf": WEIGHTS})
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q8_0.gguf")]
    assert resolve.notices == ["hf.co/owner/repo has no Q4_K_M; taking Q8_0"]


async def test_of_two_files_of_one_quantization_the_other_is_told(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_0.gguf": WEIGHTS, "m-Q4_0-v2.gguf": b"GGUF 2"})
    assert titles(await resolve("hf.co/owner/repo:Q4_0")) == [(MODEL_LAYER, "m-Q4_0.gguf")]
    assert resolve.notices == ["taking m-Q4_0.gguf; name a file to take m-Q4_0-v2.gguf instead"]


async def test_shards_projector_and_the_owners_files_come_along(hub: FakeHub, resolve: Resolver) -> None:
    texts = {"template": b"{{ .Prompt }}", "system": b"Be kind.", "params": b'{"stop": ["<end>"]}', "LICENSE": b"free"}
    shards = {f"Q4_K_M/m-Q4_K_M-0000{number}-of-00002.gguf": b"GGUF%d" % number for number in (2, 1)}
    hub.add("owner/repo", {**texts, **shards, "mmproj-F32.gguf": b"GGUF32", "mmproj-F16.gguf": b"GGUF16"})
    model = await resolve("hf.co/owner/repo")
    assert titles(model) == [
        (MODEL_LAYER, "m-Q4_K_M-00001-of-00002.gguf"),
        (MODEL_LAYER, "m-Q4_K_M-00002-of-00002.gguf"),
        (PROJECTOR_LAYER, "mmproj-F16.gguf"),
        (TEMPLATE_LAYER, "template"),
        (SYSTEM_LAYER, "system"),
        (PARAMS_LAYER, "params"),
        (LICENSE_LAYER, "LICENSE"),
    ]
    for file in model.files[3:]:
        assert file.title is not None and file.digest is not None
        assert file.digest.hex == hashlib.sha256(texts[file.title]).hexdigest()
    assert "/Q4_K_M/m-Q4_K_M-00001-of-00002.gguf" in address(model)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"params": b"temperature 1"}, "params is no JSON and is left out."),
        ({"params": b"[1]"}, "params is no JSON object and is left out."),
        ({"template": b"\xff"}, "template is no UTF-8 text and is left out."),
        ({"system": b"x" * 1048577}, "system has 1048577 bytes, too many for what it should be, and is left out."),
    ],
)
async def test_an_owners_file_that_cannot_be_used_is_left_out_aloud(
    hub: FakeHub, resolve: Resolver, files: dict[str, bytes], told: str
) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS, **files})
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q4_K_M.gguf")]
    assert resolve.notices == [told]


async def test_small_files_that_are_kept_in_git_have_no_digest_yet(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS}, large=lambda path: False)
    [file] = (await resolve("hf.co/owner/repo")).files
    assert (file.digest, file.size) == (None, len(WEIGHTS))


async def test_a_long_listing_is_read_to_its_last_page(hub: FakeHub, resolve: Resolver) -> None:
    files = {f"notes/{number}.txt": b"x" for number in range(25)}
    hub.add("owner/repo", {**files, "z-Q4_0.gguf": WEIGHTS})
    hub.behaviour.page_size = 10
    assert titles(await resolve("hf.co/owner/repo:Q4_0")) == [(MODEL_LAYER, "z-Q4_0.gguf")]
    assert len([one for one in hub.asked if "/tree/" in one.path]) == 3


async def test_a_renamed_repository_is_found_under_its_new_name(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/new", {"m-Q4_K_M.gguf": WEIGHTS})
    hub.renamed["owner/old"] = "owner/new"
    assert "/owner/new/resolve/" in address(await resolve("hf.co/owner/old"))


async def test_a_missing_quantization_lists_those_there_are(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q8_0.gguf": WEIGHTS, "m-Q4_K_M.gguf": WEIGHTS})
    error = await resolve.refusal("hf.co/owner/repo:Q3_K_S")
    assert isinstance(error, ModelNotFound)
    assert error.message == "hf.co/owner/repo has no Q3_K_S; it has Q4_K_M, Q8_0."


async def test_a_repository_without_models_lists_what_it_has(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"config.json": b"{}", "model.safetensors": b"x", "a/b.txt": b"x"})
    error = await resolve.refusal("hf.co/owner/repo")
    assert isinstance(error, ModelNotFound)
    assert error.message == (
        "hf.co/owner/repo has no GGUF file; it has config.json, model.safetensors, a/b.txt. "
        "Search for a repository of the same model with GGUF in its name."
    )


async def test_a_model_with_a_missing_shard_is_not_begun(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M-00001-of-00003.gguf": WEIGHTS})
    error = await resolve.refusal("hf.co/owner/repo")
    assert isinstance(error, SourceError)
    assert error.message == "hf.co/owner/repo has only 1 of the 3 shards of Q4_K_M."


# --- who may have it -------------------------------------------------------------------------------


async def test_a_gated_repository_says_what_to_do(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS}, gated=True)
    error = await resolve.refusal("hf.co/owner/repo")
    assert isinstance(error, Unauthorized)
    assert f"open {hub.endpoint}/owner/repo and accept them" in error.message
    assert "HF_TOKEN" in error.message


async def test_with_a_token_a_gated_repository_opens(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS}, gated=True)
    resolve.environ["HF_TOKEN"] = TOKEN
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q4_K_M.gguf")]


async def test_a_private_repository_looks_like_none_without_a_token(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS}, private=True)
    error = await resolve.refusal("hf.co/owner/repo")
    assert isinstance(error, ModelNotFound)
    assert "or it is private" in error.message
    resolve.environ["HF_TOKEN"] = TOKEN
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q4_K_M.gguf")]


async def test_a_wrong_token_is_told_and_not_repeated_in_the_message(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS})
    resolve.environ["HF_TOKEN"] = "hf_wrong"
    error = await resolve.refusal("hf.co/owner/repo")
    assert isinstance(error, Unauthorized)
    assert "does not accept the token" in error.message
    assert "hf_wrong" not in error.message


async def test_the_token_goes_to_the_hub_and_to_no_other_host(hub: FakeHub, resolve: Resolver) -> None:
    login = HubLogin(hub.endpoint, TOKEN)
    assert await login.headers(f"{hub.endpoint}/x") == {"Authorization": f"Bearer {TOKEN}"}
    for other in (hub.cdn, hub.endpoint.replace("http:", "https:"), hub.endpoint.replace("127.0.0.1", "localhost")):
        assert await login.headers(f"{other}/x") == {}
    assert TOKEN not in repr(login)


@pytest.mark.parametrize(
    ("environ", "file"),
    [
        ({"HF_TOKEN": "hf_a\n"}, None),
        ({"HF_TOKEN_PATH": "~/given"}, "given"),
        ({"HF_HOME": "~/hf"}, "hf/token"),
        ({"XDG_CACHE_HOME": "~/cache"}, "cache/huggingface/token"),
        ({}, ".cache/huggingface/token"),
    ],
)
def test_the_token_is_found_where_the_hubs_tools_keep_it(
    tmp_path: Path, environ: dict[str, str], file: str | None
) -> None:
    if file is not None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("hf_a\n")
    login = find_login(environ, tmp_path)
    assert (login.endpoint, login.token) == (DEFAULT_ENDPOINT, "hf_a")


def test_no_token_is_fine_and_one_that_no_header_can_carry_is_none(tmp_path: Path) -> None:
    assert find_login({}, tmp_path).token is None
    assert find_login({"HF_TOKEN": "a\r\nb"}, tmp_path).token is None


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub.example.com", "https://", "https://hub:port"])
def test_an_endpoint_that_is_no_address_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(SourceError, match="HF_ENDPOINT"):
        find_login({"HF_ENDPOINT": endpoint}, tmp_path)


async def test_only_the_hub_that_was_named_may_be_on_this_machine(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS})
    [file] = (await resolve("hf.co/owner/repo")).files
    [place] = file.places
    assert isinstance(place, HttpFile) and place.hosts is not None
    await place.hosts.check(f"{hub.endpoint}/x")
    with pytest.raises(RegistryForbidden):
        await place.hosts.check(f"{hub.cdn}/x")


# --- odd answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["../../other/m-Q4_K_M.gguf", "/etc/m-Q4_K_M.gguf", "a//m-Q4_K_M.gguf", "a/../m-Q4_K_M.gguf", "a\\m-Q4_K_M.gguf",
     "m-Q4_K_M\n.gguf", "", 7, None],
)  # fmt: skip
async def test_files_with_impossible_paths_are_not_there(hub: FakeHub, resolve: Resolver, path: object) -> None:
    repository = hub.add("owner/repo", {"m-Q8_0.gguf": WEIGHTS})
    repository.entries.append({"type": "file", "path": path, "size": 5, "oid": "0" * 40})
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q8_0.gguf")]


async def test_odd_characters_in_paths_do_not_leave_the_address(hub: FakeHub, resolve: Resolver) -> None:
    repository = hub.add("owner/repo", {"a b/m?x#y%2e%2e-Q4_K_M.gguf": WEIGHTS})
    url = address(await resolve("hf.co/owner/repo"))
    assert url == f"{hub.endpoint}/owner/repo/resolve/{repository.sha}/a%20b/m%3Fx%23y%252e%252e-Q4_K_M.gguf"


@pytest.mark.parametrize(
    "lie", [{"size": -1}, {"size": "5"}, {"size": True}, {"size": 1 << 60}, {"type": "link"}, {"lfs": {"size": -2}}]
)
async def test_entries_with_impossible_sizes_are_not_there(
    hub: FakeHub, resolve: Resolver, lie: dict[str, Any]
) -> None:
    lies = {"m-Q4_K_M.gguf": lie}
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS, "m-Q8_0.gguf": WEIGHTS}, lies=lies, large=lambda path: False)
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q8_0.gguf")]


async def test_a_digest_of_the_wrong_form_counts_as_none(hub: FakeHub, resolve: Resolver) -> None:
    lies: dict[str, dict[str, Any]] = {"m-Q4_K_M.gguf": {"lfs": {"oid": "../../x", "size": 5}}}
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS}, lies=lies)
    [file] = (await resolve("hf.co/owner/repo")).files
    assert (file.digest, file.size) == (None, 5)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b'{"sha": "main"}', b'{"sha": 7}', b"[" * 5000, b"\xff"])
async def test_answers_that_are_not_the_hubs_are_told(hub: FakeHub, resolve: Resolver, body: bytes) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS})
    hub.behaviour.api_body = body
    assert type(await resolve.refusal("hf.co/owner/repo")) is SourceError


async def test_a_listing_that_never_ends_is_given_up(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS})
    hub.behaviour.endless_pages = True
    error = await resolve.refusal("hf.co/owner/repo")
    assert "more than 50 pages" in error.message


async def test_a_listing_that_goes_on_at_another_host_is_refused(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS, "b": b"", "c": b""})
    hub.behaviour.page_size = 1
    hub.behaviour.next_page = lambda link: link.replace(hub.endpoint, hub.cdn)
    error = await resolve.refusal("hf.co/owner/repo")
    assert "continues on another host" in error.message
    assert hub.asked_cdn == []


async def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS})
    hub.behaviour.statuses = [503, 429]
    assert titles(await resolve("hf.co/owner/repo")) == [(MODEL_LAYER, "m-Q4_K_M.gguf")]


async def test_a_hub_that_stays_busy_counts_as_not_reached(hub: FakeHub, resolve: Resolver) -> None:
    hub.add("owner/repo", {"m-Q4_K_M.gguf": WEIGHTS})
    hub.behaviour.statuses = [503] * 9
    assert isinstance(await resolve.refusal("hf.co/owner/repo"), SourceUnreachable)


async def test_a_hub_that_is_not_there_is_told(tmp_path: Path) -> None:
    with FakeHub().running() as hub:
        resolve = Resolver(hub, tmp_path)
    assert isinstance(await resolve.refusal("hf.co/owner/repo"), SourceUnreachable)


# --- search ----------------------------------------------------------------------------------------


async def test_the_search_tells_what_the_hub_knows(hub: FakeHub, resolve: Resolver) -> None:
    gguf = {"total": 135_000_000, "architecture": "llama", "context_length": 8192}
    hub.add("owner/smol-GGUF", {"m-Q4_K_M.gguf": WEIGHTS}, gguf=gguf, gated=True)
    hub.add("owner/other-GGUF", {})
    [found] = await resolve.source.search("smol", 5, 20)
    assert (found.id, found.files, found.is_gated, found.licence) == (
        "owner/smol-GGUF", ("m-Q4_K_M.gguf",), True, "apache-2.0",
    )  # fmt: skip
    assert (found.parameters, found.architecture, found.context_length) == (135_000_000, "llama", 8192)


async def test_the_search_passes_over_what_is_no_repository(hub: FakeHub, resolve: Resolver) -> None:
    entries = [
        7,
        {},
        {"id": "../x"},
        {"id": "a/b/c"},
        {"id": "o/r", "gguf": [], "siblings": {}, "tags": 1, "likes": -1},
    ]
    hub.behaviour.api_body = json.dumps(entries).encode()
    [found] = await resolve.source.search("", 9, 20)
    assert (found.id, found.files, found.likes, found.licence, found.parameters) == ("o/r", (), None, None, None)


async def test_the_search_asks_once_and_waits_no_longer_than_it_was_told(hub: FakeHub, resolve: Resolver) -> None:
    hub.behaviour.statuses = [503, 503]
    with pytest.raises(SourceUnreachable):
        await resolve.source.search("", 9, 20)
    assert len(hub.asked) == 1
    hub.behaviour.statuses.clear()
    with hub.silent(), pytest.raises(SourceUnreachable, match=r"0\.05 seconds"):
        await resolve.source.search("", 9, 0.05)

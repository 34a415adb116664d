"""Pulling from a hub: what is installed, and what a hub or its host of files can do wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import ModelNotFound
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.registries import Registries, RegistryEntry
from registry.sources.huggingface import HuggingFaceSource
from registry.store import ModelStore
from tests.registry.fake_hub import TOKEN, FakeHub
from tests.registry.gguf_bytes import tiny_gguf

NAME = ModelName.parse("hf.co/owner/repo:Q4_0")
GGUF = tiny_gguf()
FILE = "m-Q4_0.gguf"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as hub:
        yield hub


class Cellar:
    def __init__(self, hub: FakeHub, folder: Path, *, lists_cdn: bool = True) -> None:
        self.store = ModelStore(folder / "models")
        cdn = hub.cdn.removeprefix("http://")
        listed = Registries({cdn: RegistryEntry(cdn, insecure=True)} if lists_cdn else {})
        options = PullOptions(idle_timeout_seconds=20, keep_free_bytes=0)
        environ = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN}
        source = HuggingFaceSource(lambda: listed, options, environ, folder)
        self.puller = Puller(self.store, [source], options, {})

    async def pull(self, name: ModelName = NAME) -> list[Progress]:
        return [step async for step in self.puller.pull(name)]

    async def refusal(self) -> str:
        """The code of the error that a pull ends with; nothing is installed then."""
        with pytest.raises(Exception) as caught:
            await self.pull()
        assert self.store.models() == []
        assert not [path for path in (self.store.root / "blobs").glob("*") if path.is_file()]
        return str(getattr(caught.value, "code", caught.value))


async def test_what_the_owner_says_of_a_model_is_installed_with_it(hub: FakeHub, tmp_path: Path) -> None:
    texts = {"template": b"{{ .Prompt }}", "system": b"Be kind.", "params": b'{"temperature": 0.5}', "LICENSE": b"free"}
    hub.add("owner/repo", {FILE: GGUF, **texts})
    cellar = Cellar(hub, tmp_path)
    assert (await cellar.pull())[-1].status == "success"
    model = cellar.store.find(ModelName.parse("HF.co/Owner/Repo:q4_0"))
    assert model.model_path.read_bytes() == GGUF
    assert (model.template, model.system, model.licenses) == ("{{ .Prompt }}", "Be kind.", ["free"])
    assert model.parameters == {"temperature": 0.5}


async def test_the_name_with_its_quantization_survives_the_store(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: GGUF})
    cellar = Cellar(hub, tmp_path)
    for tag in ("Q4_0", "m-Q4_0.gguf", "latest"):
        await cellar.pull(ModelName.parse(f"hf.co/owner/repo:{tag}"))
    names = {model.name.short for model in ModelStore(cellar.store.root).models()}
    assert names == {f"hf.co/owner/repo:{tag}" for tag in ("Q4_0", "m-Q4_0.gguf", "latest")}


async def test_a_small_file_that_has_no_digest_is_fetched_from_the_hub_itself(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: GGUF}, large=lambda path: False)
    cellar = Cellar(hub, tmp_path)
    assert (await cellar.pull())[-1].status == "success"
    assert cellar.store.find(NAME).model_path.read_bytes() == GGUF
    assert hub.asked_cdn == []


async def test_other_bytes_than_the_listing_promised_are_not_installed(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: GGUF})
    hub.behaviour.served[hashlib.sha256(GGUF).hexdigest()] = b"X" * len(GGUF)
    assert await Cellar(hub, tmp_path).refusal() == "digest_mismatch"


@pytest.mark.parametrize("difference", [-1, 1])
async def test_a_listing_with_a_wrong_size_is_found_out(hub: FakeHub, tmp_path: Path, difference: int) -> None:
    lfs: dict[str, Any] = {"oid": hashlib.sha256(GGUF).hexdigest(), "size": len(GGUF) + difference}
    hub.add("owner/repo", {FILE: GGUF}, lies={FILE: {"lfs": lfs}})
    assert await Cellar(hub, tmp_path).refusal() == "registry_error"


async def test_a_file_that_is_no_model_is_not_installed(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: b"<html>Sign in</html>"})
    with pytest.raises(Exception) as caught:
        await Cellar(hub, tmp_path).pull()
    assert getattr(caught.value, "code", "") == "model_invalid"
    assert ModelStore(tmp_path / "models").models() == []


async def test_a_redirect_to_an_address_of_this_machine_is_not_followed(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: GGUF})
    assert await Cellar(hub, tmp_path, lists_cdn=False).refusal() == "registry_forbidden"
    assert hub.asked_cdn == []


async def test_a_commit_that_comes_in_between_changes_nothing(hub: FakeHub, tmp_path: Path) -> None:
    """What was listed is what is fetched, however long it takes."""
    repository = hub.add("owner/repo", {FILE: GGUF})
    cellar = Cellar(hub, tmp_path)
    steps = cellar.puller.pull(NAME)
    async for step in steps:
        if step.digest is not None:
            repository.commit({FILE: GGUF + b"\0" * 32})
    assert cellar.store.find(NAME).model_path.read_bytes() == GGUF


async def test_the_login_never_reaches_the_host_of_the_files(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: GGUF}, gated=True)
    await Cellar(hub, tmp_path).pull()
    assert hub.asked_cdn
    assert all(one.headers.get("authorization") == f"Bearer {TOKEN}" for one in hub.asked)
    assert not any(TOKEN in str(one) for one in hub.asked_cdn)


async def test_a_tag_that_is_not_there_installs_nothing(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/repo", {FILE: GGUF})
    cellar = Cellar(hub, tmp_path)
    with pytest.raises(ModelNotFound, match="it has Q4_0"):
        await cellar.pull(ModelName.parse("hf.co/owner/repo:Q8_0"))
    assert cellar.store.models() == []

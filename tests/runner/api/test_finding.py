"""GET /api/search and GET /api/outdated: Puna's own paths about models elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from registry.errors import RegistryError, RegistryForbidden, SourceUnreachable
from registry.name import ModelName
from registry.outdated import Freshness, Verdict
from registry.search import FoundModel
from registry.sources.model_url import ModelUrl
from runner.api.finding import HUB_SECONDS
from runner.supervisor.likely_fit import LikelyFit
from tests.fakes import FakeFinder, FakeModel, FakeStore, FakeSupervisor
from tests.runner.api.serving import FakeDaemon

REPO = FoundModel(
    ModelName.parse("hf.co/Owner/repo"), "hub", quantization="Q4_0", quantizations=("Q4_0", "Q8_0"), size=400,
    is_estimate=True, is_gated=True,
)  # fmt: skip
ENTRY = FoundModel(
    ModelName.parse("m:1"), "catalog", "A model.", "MIT", "Q4_1", ("Q4_1",), 1000, other_names=(ModelName.parse("m"),)
)


@dataclass
class Finder(FakeFinder):
    entries: list[FoundModel] = field(default_factory=lambda: [ENTRY])
    hub: list[FoundModel] | RegistryError = field(default_factory=lambda: [REPO])
    verdicts: list[Verdict] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)

    def search_catalog(self, text: str) -> list[FoundModel]:
        self.asked.append(text)
        return list(self.entries)

    async def search_hub(self, text: str, limit: int, timeout_seconds: float) -> list[FoundModel]:
        self.asked.append((text, limit, timeout_seconds))
        if isinstance(self.hub, RegistryError):
            raise self.hub
        return self.hub

    async def check(self, names: Sequence[ModelName], timeout_seconds: float) -> list[Verdict]:
        self.asked.append(list(names))
        return self.verdicts


class Supervisor(FakeSupervisor):
    def likely_fit(self, size: int) -> LikelyFit:
        return LikelyFit.MEMORY if size > 500 else LikelyFit.GPU


@pytest.fixture
def finder() -> Finder:
    return Finder()


@pytest.fixture
def daemon(finder: Finder) -> FakeDaemon:
    names = ("m:latest", "hf.co/owner/Repo:Q8_0", "hf.co/owner/other:Q8_0")
    store = FakeStore(*(FakeModel(name=ModelName.parse(name)) for name in names))
    return FakeDaemon(Supervisor(), store, finder=cast("Any", finder))


async def test_the_search_tells_catalog_and_hub_with_fit_and_what_is_here(daemon: FakeDaemon, finder: Finder) -> None:
    async with daemon.client() as client:
        found = (await client.get("/api/search", params={"q": "some words", "limit": "5"})).json()
    assert finder.asked == ["some words", ("some words", 5, HUB_SECONDS)]
    assert found["hub"] == {"asked": True, "reached": True}
    assert found["models"] == [
        {
            "name": "m:1", "kind": "catalog", "names": ["m:latest"], "description": "A model.", "license": "MIT",
            "quantization": "Q4_1", "quantizations": ["Q4_1"], "size": 1000, "size_is_estimate": False,
            "gated": False, "fit": "memory", "installed": ["m:latest"],
        },
        {
            "name": "hf.co/Owner/repo", "kind": "hub", "quantization": "Q4_0", "quantizations": ["Q4_0", "Q8_0"],
            "size": 400, "size_is_estimate": True, "gated": True, "fit": "gpu",
            "installed": ["hf.co/owner/Repo:Q8_0"],
        },
    ]  # fmt: skip


async def test_without_the_hub_the_catalog_is_told_all_the_same(daemon: FakeDaemon, finder: Finder) -> None:
    finder.hub = SourceUnreachable("nobody answers")
    async with daemon.client() as client:
        found = (await client.get("/api/search")).json()
    assert [one["name"] for one in found["models"]] == ["m:1"]
    assert found["hub"] == {
        "asked": True, "reached": False, "error": "nobody answers", "code": "registry_unreachable",
    }  # fmt: skip


async def test_the_hub_is_not_asked_when_it_is_not_wanted(daemon: FakeDaemon, finder: Finder) -> None:
    finder.hub = RegistryForbidden("must not be asked")
    async with daemon.client() as client:
        found = (await client.get("/api/search", params={"hub": "false"})).json()
    assert found["hub"] == {"asked": False} and finder.asked == [""]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=٣", f"limit={'9' * 5000}", "hub=maybe", "page=2",
     f"q={'x' * 201}"],
)  # fmt: skip
async def test_odd_questions_are_refused(daemon: FakeDaemon, finder: Finder, query: str) -> None:
    async with daemon.client() as client:
        answer = await client.get(f"/api/search?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert finder.asked == []


async def test_verdicts_are_told_with_their_sources(daemon: FakeDaemon, finder: Finder) -> None:
    url = ModelUrl("https://example.com/m.gguf?key=x")
    finder.verdicts = [
        Verdict(ModelName.parse("m"), Freshness.OUTDATED, "changed at its source: weights", ModelName.parse("n:1")),
        Verdict(ModelName.parse("o"), Freshness.CURRENT, "", url),
        Verdict(ModelName.parse("p"), Freshness.UNKNOWN, "made here", None),
    ]
    async with daemon.client() as client:
        told = (await client.get("/api/outdated", params=[("model", "m"), ("model", "o:latest")])).json()
    assert finder.asked == [[ModelName.parse("m"), ModelName.parse("o")]]
    assert told["models"] == [
        {"name": "m:latest", "state": "outdated", "reason": "changed at its source: weights",
         "source": "registry.ollama.ai/library/n:1"},
        {"name": "o:latest", "state": "current", "reason": "", "source": url.url},
        {"name": "p:latest", "state": "unknown", "reason": "made here"},
    ]  # fmt: skip


async def test_a_name_that_cannot_be_one_is_refused(daemon: FakeDaemon, finder: Finder) -> None:
    async with daemon.client() as client:
        answer = await client.get("/api/outdated", params={"model": "../x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_pull_takes_an_address_and_a_name(daemon: FakeDaemon, finder: Finder) -> None:
    async with daemon.client() as client:
        body = {"model": "https://example.com/My%20Model-Q4_0.gguf", "stream": False}
        assert (await client.post("/api/pull", json=body)).json() == {"status": "success"}
        assert (await client.post("/api/pull", json={**body, "as": "mine"})).json() == {"status": "success"}
        refused = await client.post("/api/pull", json={**body, "as": "../up"})
    url = ModelUrl("https://example.com/My%20Model-Q4_0.gguf")
    assert daemon.puller.pulled == [ModelName.parse("my-model:Q4_0"), ModelName.parse("mine")]
    assert finder.sought == [url, url]
    assert [target.source for target in finder.remembered] == [url, url]
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "invalid_request", "as")

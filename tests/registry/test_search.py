"""Looking for models in the catalog and among what a hub tells."""

from __future__ import annotations

from registry.catalog import Catalog
from registry.search import search_catalog, search_hub
from registry.sources.huggingface_api import HubModel


class Hub:
    def __init__(self, *models: HubModel) -> None:
        self.models = list(models)
        self.asked: list[tuple[str, int, float]] = []

    async def search(self, text: str, limit: int, timeout_seconds: float) -> list[HubModel]:
        self.asked.append((text, limit, timeout_seconds))
        return self.models


def test_every_word_has_to_be_in_a_name_or_description() -> None:
    catalog = Catalog.load()
    assert [one.name.short for one in search_catalog(catalog, "SMOLLM2")] == ["smollm2:135m"]
    assert [one.name.short for one in search_catalog(catalog, "google small")] == ["gemma3:270m"]
    assert search_catalog(catalog, "smollm2 google") == []
    assert len(search_catalog(catalog, "")) == len(catalog.entries())


def test_an_entry_tells_its_size_quantization_and_other_names() -> None:
    [found] = search_catalog(Catalog.load(), "smollm2")
    assert (found.size, found.is_estimate, found.licence) == (98373789, False, "Apache-2.0")
    assert (found.quantization, found.quantizations) == ("Q4_1", ("Q4_1",))
    assert [name.short for name in found.other_names] == ["smollm2:latest"]


async def test_a_repository_tells_what_its_name_alone_would_bring() -> None:
    files = ("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q2_K-00001-of-00002.gguf", "mmproj-F16.gguf", "README.md")
    hub = Hub(HubModel("owner/repo", files, parameters=1_000_000_000, downloads=5, is_gated=True))
    [found] = await search_hub(hub, "words", 7, 3)
    assert hub.asked == [("words", 7, 3)]
    assert found.name.short == "hf.co/owner/repo:latest"
    assert (found.quantization, found.quantizations) == ("Q4_K_M", ("Q4_K_M", "Q8_0"))
    assert (found.size, found.is_estimate) == (606_250_000, True)
    assert found.is_gated and found.downloads == 5


async def test_without_parameters_or_quantization_there_is_no_estimate() -> None:
    hub = Hub(HubModel("o/a", ("m-Q4_0.gguf",)), HubModel("o/b", ("model.gguf",), parameters=10))
    assert [(one.size, one.is_estimate) for one in await search_hub(hub, "", 9, 1)] == [(None, False), (None, False)]


async def test_repositories_that_cannot_be_pulled_are_not_shown() -> None:
    hub = Hub(HubModel("-owner/repo", ("m.gguf",)), HubModel("owner/con", ("m.gguf",)), HubModel("o/r", ("a.bin",)))
    assert await search_hub(hub, "", 9, 1) == []

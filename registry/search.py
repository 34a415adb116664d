"""Looking for models by words: in the catalog, which is always here, and on the hub, which may not be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from registry.catalog import Catalog, CatalogEntry, PackageIndexSpec
from registry.errors import InvalidName
from registry.name import HUB_HOST, ModelName
from registry.sources import quantization
from registry.sources.gguf_choice import ListedFile, Variant, variants
from registry.sources.huggingface_api import HubModel


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that can be pulled by `name`. What nobody tells is None."""

    name: ModelName
    kind: Literal["catalog", "hub"]
    description: str | None = None
    licence: str | None = None
    quantization: str | None = None
    """Of what the name alone means."""
    quantizations: tuple[str, ...] = ()
    """All that can be had, best first."""
    size: int | None = None
    is_estimate: bool = False
    """Whether the size is reckoned from the number of parameters."""
    parameters: int | None = None
    context_length: int | None = None
    downloads: int | None = None
    is_gated: bool = False
    other_names: tuple[ModelName, ...] = ()


class HubSearch(Protocol):
    """The hub, as far as it is searched."""

    async def search(self, text: str, limit: int, timeout_seconds: float) -> list[HubModel]: ...


def search_catalog(catalog: Catalog, text: str) -> list[FoundModel]:
    """The entries that have every word of the text in their names or descriptions, in whatever case."""
    words = text.lower().split()
    return [_of_entry(entry) for entry in catalog.entries() if all(word in _searchable(entry) for word in words)]


async def search_hub(hub: HubSearch, text: str, limit: int, timeout_seconds: float) -> list[FoundModel]:
    """Repositories with models that can be run here, the most fetched first. Raises SourceError and its kin."""
    found = await hub.search(text, limit, timeout_seconds)
    return [model for one in found if (model := _of_repository(one)) is not None]


def _searchable(entry: CatalogEntry) -> str:
    return " ".join([*(name.short for name in entry.names), entry.description]).lower()


def _of_entry(entry: CatalogEntry) -> FoundModel:
    found = quantization.find(entry.description) or _quantization_of_files(entry)
    return FoundModel(
        name=entry.name,
        kind="catalog",
        description=entry.description,
        licence=entry.licence,
        quantization=found,
        quantizations=(found,) if found else (),
        size=entry.size,
        other_names=entry.names[1:],
    )


def _quantization_of_files(entry: CatalogEntry) -> str | None:
    for source in entry.sources:
        if isinstance(source, PackageIndexSpec) and (found := quantization.find(source.files["model"])):
            return found
    return None


def _of_repository(model: HubModel) -> FoundModel | None:
    """None for a repository without a model, and for one whose name no model here can have."""
    choices = [one for one in variants(ListedFile(path, 0) for path in model.files) if not one.missing]
    owner, _, repository = model.id.partition("/")
    try:
        name = ModelName.parse(f"{HUB_HOST}/{owner}/{repository}")
    except InvalidName:
        return None
    if not choices:
        return None
    size = _estimate(choices[0], model.parameters)
    return FoundModel(
        name=name,
        kind="hub",
        licence=model.licence,
        quantization=choices[0].quantization,
        quantizations=_quantizations(choices),
        size=size,
        is_estimate=size is not None,
        parameters=model.parameters,
        context_length=model.context_length,
        downloads=model.downloads,
        is_gated=model.is_gated,
    )


def _quantizations(choices: Sequence[Variant]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.quantization for one in choices if one.quantization))


def _estimate(variant: Variant, parameters: int | None) -> int | None:
    """The hub's search tells no sizes; the number of weights and their bits make a good guess."""
    bits = quantization.bits(variant.quantization)
    return round(parameters * bits / 8) if parameters and bits else None

"""Where models can be had: searches the catalog and the hub, and asks the sources of those that are here for news."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from registry.catalog import Catalog
from registry.errors import InvalidRequest, RegistryError
from registry.name import ModelName
from registry.origins import Origin, Origins
from registry.outdated import Installed, Verdict, check_all
from registry.progress import Notice
from registry.search import FoundModel, HubSearch, search_catalog, search_hub
from registry.sources.model_url import ModelUrl, parse_model_url
from registry.sources.resolved import Find, ModelSource, ResolvedModel
from registry.sources.url import UrlSource
from registry.store import ModelStore
from registry.stored_model import StoredModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What a pull is about: the name a model gets here, and where it comes from."""

    name: ModelName
    source: ModelName | ModelUrl

    @classmethod
    def parse(cls, text: str, given_name: str | None = None) -> Target:
        """Read a name or an address, and the name to install it under. Raises InvalidRequest and InvalidName."""
        source = parse_model_url(text) or ModelName.parse(text)
        if given_name is not None:
            return cls(ModelName.parse(given_name), source)
        return cls(source.suggested_name if isinstance(source, ModelUrl) else source, source)

    @property
    def named_source(self) -> ModelName | ModelUrl | None:
        """The source when the name alone does not say it."""
        is_own_name = isinstance(self.source, ModelName) and self.source.folded == self.name.folded
        return None if is_own_name else self.source


def source_text(source: ModelName | ModelUrl) -> str:
    """As `Target.parse` reads it again."""
    return source.url if isinstance(source, ModelUrl) else source.full


class Finder:
    """Answers questions about models and their sources; owns the notes on where models came from."""

    def __init__(
        self, store: ModelStore, catalog: Catalog, sources: Sequence[ModelSource], hub: HubSearch, urls: UrlSource
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._sources = tuple(sources)
        self._hub = hub
        self._urls = urls
        self._origins = Origins(store.root)

    def search_catalog(self, text: str) -> list[FoundModel]:
        return search_catalog(self._catalog, text)

    async def search_hub(self, text: str, limit: int, timeout_seconds: float) -> list[FoundModel]:
        """Raises SourceError, SourceUnreachable or RegistryForbidden."""
        return await search_hub(self._hub, text, limit, timeout_seconds)

    def find(self, source: ModelName | ModelUrl, *, insecure: bool = False) -> Find:
        """What resolves a source, whenever it is called. Raises as ModelSource.resolve."""

        async def resolve(notice: Notice) -> ResolvedModel:
            if isinstance(source, ModelUrl):
                return await self._urls.resolve(source, notice)
            for one in self._sources:
                if one.handles(source):
                    return await one.resolve(source, notice, insecure=insecure)
            raise InvalidRequest(f"Nobody knows where {source.short} could come from.")

        return resolve

    def finds(self, model: StoredModel) -> list[Find]:
        """What resolves the places that a model may be had from again: where it came from, then its own name."""
        noted = self._origins.find(model.digest)
        sources: list[ModelName | ModelUrl] = [model.name]
        if noted is not None:
            with contextlib.suppress(InvalidRequest):
                sources.insert(0, Target.parse(noted.source).source)
        return [self.find(source) for source in sources]

    async def begun_from(self, name: ModelName) -> ModelName | ModelUrl | None:
        """Where a pull that broke off was fetching a model from, if not from where its name says."""
        begun = await asyncio.to_thread(self._store.blobs.pulls.find, name)
        if begun is None or begun.source is None:
            return None
        with contextlib.suppress(InvalidRequest):
            return Target.parse(begun.source).source
        return None

    async def remember(self, target: Target, fetched_at: datetime) -> None:
        """Note where a model that was just pulled came from. A store that cannot be written goes without."""

        def note() -> None:
            try:
                model = self._store.find(target.name)
                self._origins.remember(model.digest, Origin(source_text(target.source), fetched_at))
                self._origins.forget_others(one.digest for one in self._store.models())
            except (RegistryError, OSError) as error:
                logger.warning("It is not noted where %s came from: %s", target.name.short, error)

        await asyncio.to_thread(note)

    async def check(self, names: Sequence[ModelName], timeout_seconds: float) -> list[Verdict]:
        """Whether the sources of these models, or of all when none is named, have something newer.

        Raises ModelNotFound for a name that is not here; what the sources say wrong is in the verdicts.
        """
        models = await asyncio.to_thread(self._installed, names)

        async def resolve(name: ModelName) -> ResolvedModel:
            return await self.find(name)(lambda notice: None)

        return await check_all(models, resolve, self._urls.facts, timeout_seconds=timeout_seconds)

    def _installed(self, names: Sequence[ModelName]) -> list[Installed]:
        models = [self._store.find(name) for name in names] if names else self._store.models()
        return [
            Installed(model.name, model.digest, model.manifest, self._origin_of(model))
            for model in sorted(models, key=lambda model: model.name.folded)
        ]

    def _origin_of(self, model: StoredModel) -> Origin | None:
        """As it was noted; for one of the catalog that nobody noted, the catalog, if it has just these weights."""
        noted = self._origins.find(model.digest)
        entry = self._catalog.find(model.name)
        if noted is None and entry is not None and entry.digest in [layer.digest for layer in model.manifest.layers]:
            return Origin(model.name.full, model.modified_at)
        return noted

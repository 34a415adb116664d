"""Where models come from and go to: builds the parts that ask other machines, from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.catalog import Catalog
from registry.finder import Finder
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.push import Pusher
from registry.sources.cataloged import CatalogSource
from registry.sources.huggingface import HuggingFaceSource
from registry.sources.machine_key import MachineKey
from registry.sources.oci import OciSource
from registry.sources.registry_connector import RegistryConnector
from registry.sources.resolved import ModelSource
from registry.sources.url import UrlSource
from registry.store import ModelStore
from runner.registries import RegistryTable
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of one daemon."""

    puller: Puller
    pusher: Pusher
    finder: Finder


def make_sources(
    settings: Settings, config_file: Path, store: ModelStore, environ: Mapping[str, str], home: Path
) -> Sources:
    """Names are looked for in the catalog first; those that nobody else knows are models of a registry."""
    pull = settings.pull
    options = PullOptions(
        parallel=pull.parallel,
        idle_timeout_seconds=pull.idle_timeout_seconds,
        keep_free_bytes=pull.keep_free_bytes,
        proxy=pull.proxy,
        ca_bundle=pull.ca_bundle,
    )
    load_registries = RegistryTable(config_file).load
    connector = RegistryConnector(load_registries, options, environ, home, MachineKey.beside(config_file))
    catalog = Catalog.load()
    hub = HuggingFaceSource(load_registries, options, environ, home)
    sources: list[ModelSource] = [CatalogSource(catalog), hub, OciSource(connector)]
    return Sources(
        puller=Puller(store, sources, options, environ),
        pusher=Pusher(store, connector, idle_timeout_seconds=pull.idle_timeout_seconds),
        finder=Finder(store, catalog, sources, hub, UrlSource(load_registries, options, store.blobs.unchanged)),
    )

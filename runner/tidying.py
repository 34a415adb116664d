"""Looks after the model store when the daemon starts: what its disk cannot do, and what was left lying about."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from registry.errors import RegistryError, StoreReadOnly
from registry.file_system import probe
from registry.paths import Paths
from registry.scratch import remove_abandoned
from registry.store import ModelStore

logger = logging.getLogger(__name__)

MIN_AGE_SECONDS = 3600.0
"""What is younger may belong to a pull or a creation under way, in this process or another."""


def tidy_in_background(store: ModelStore, *, is_own: bool) -> threading.Thread:
    """Start `look_at` and `tidy` in a thread that nobody has to wait for."""

    def run() -> None:
        look_at(store)
        tidy(store, is_own=is_own)

    thread = threading.Thread(target=run, name="tidy", daemon=True)
    thread.start()
    return thread


def look_at(store: ModelStore) -> None:
    """Warn of layers that are not there and of what the store's disk cannot do, once each. Raises nothing."""
    for layer in store.layers:
        if not layer.is_dir():
            logger.warning("There is no model store at %s (store.layers).", layer)
    if not store.root.is_dir():
        return
    abilities = probe(store.root)
    if abilities is None:
        logger.warning("The model store %s can only be read: models run, and none can be added or removed.", store.root)
    elif abilities.lacks:
        logger.warning("The disk of the model store %s has limits: %s.", store.root, "; ".join(abilities.lacks))


def tidy(store: ModelStore, *, is_own: bool) -> None:
    """Remove old partials and, from a store of our own, old blobs that no model needs. Raises nothing.

    Of a store that other programs may use too only the folder of our partials is touched: they
    have blobs that no manifest names yet, or manifests that we do not know.
    """
    if not store.root.is_dir() or not os.access(store.root, os.W_OK):
        return
    try:
        if is_own:
            removed = store.prune(MIN_AGE_SECONDS)
            if removed:
                logger.info("%d files that no model needs were removed from the model store", len(removed))
        else:
            store.blobs.remove_stale_partials(MIN_AGE_SECONDS)
        remove_abandoned(store.root)
    except StoreReadOnly:
        return
    except (RegistryError, OSError) as error:
        logger.warning("the model store could not be tidied: %s", error)


def is_own_store(paths: Paths, environ: Mapping[str, str]) -> bool:
    """Whether the store is where only we put one; a folder that the user named may be another program's."""
    default = Paths.from_environment({name: value for name, value in environ.items() if name != "PUNA_MODELS"})
    return paths.models == default.models

"""Clears out of the model store what broken-off pulls and creations have left, when the daemon starts."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from registry.errors import RegistryError, StoreReadOnly
from registry.paths import Paths
from registry.store import ModelStore

logger = logging.getLogger(__name__)

MIN_AGE_SECONDS = 3600.0
"""What is younger may belong to a pull or a creation under way, in this process or another."""


def tidy_in_background(store: ModelStore, *, is_own: bool) -> threading.Thread:
    """Start `tidy` in a thread that nobody has to wait for."""
    thread = threading.Thread(target=tidy, args=(store,), kwargs={"is_own": is_own}, name="tidy", daemon=True)
    thread.start()
    return thread


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
    except StoreReadOnly:
        return
    except (RegistryError, OSError) as error:
        logger.warning("the model store could not be tidied: %s", error)


def is_own_store(paths: Paths, environ: Mapping[str, str]) -> bool:
    """Whether the store is where only we put one; a folder that the user named may be another program's."""
    default = Paths.from_environment({name: value for name, value in environ.items() if name != "PUNA_MODELS"})
    return paths.models == default.models

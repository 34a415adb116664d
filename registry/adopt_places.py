"""Where other programs keep models, and which layout a folder has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry.errors import InvalidRequest
from registry.found_models import Findings
from registry.gguf_folders import find_file, find_in_folder, find_in_hub_cache, find_in_lm_studio, is_hub_cache
from registry.ollama_store import find_in_ollama_store, is_ollama_store

_LM_STUDIO_FOLDERS = (".lmstudio", "lm-studio")


def default_places(environ: Mapping[str, str], home: Path) -> list[Path]:
    """The folders that exist of those where Ollama, LM Studio and Hugging Face keep models on this system."""
    found: dict[Path, Path] = {}
    for place in _candidates(environ, home):
        if place.is_dir():
            found.setdefault(place.resolve(), place)
    return list(found.values())


def find_models(place: Path) -> Findings:
    """The models in a folder, or in one GGUF file, in whatever layout. Raises InvalidRequest when there is no such."""
    if place.is_file():
        if place.suffix.lower() != ".gguf":
            raise InvalidRequest(f"{place} is no GGUF file.")
        return find_file(place)
    if not place.is_dir():
        raise InvalidRequest(f"There is no {place}.")
    if not os.access(place, os.R_OK | os.X_OK):
        raise InvalidRequest(f"{place} cannot be read by you.")
    for inside in (place, place / "models"):
        if is_ollama_store(inside):
            return find_in_ollama_store(inside)
    for inside in (place, place / "hub"):
        if is_hub_cache(inside):
            return find_in_hub_cache(inside)
    if place.name == "models" and place.parent.name in _LM_STUDIO_FOLDERS:
        return find_in_lm_studio(place)
    if place.name in _LM_STUDIO_FOLDERS and (place / "models").is_dir():
        return find_in_lm_studio(place / "models")
    return find_in_folder(place)


def _candidates(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    ollama = environ.get("OLLAMA_MODELS")
    if ollama:
        yield Path(ollama).expanduser()
    yield home / ".ollama" / "models"
    if sys.platform.startswith("linux"):
        yield Path("/usr/share/ollama/.ollama/models")
    yield home / ".lmstudio" / "models"
    yield home / ".cache" / "lm-studio" / "models"
    hub, hub_home = environ.get("HF_HUB_CACHE"), environ.get("HF_HOME")
    if hub:
        yield Path(hub).expanduser()
    elif hub_home:
        yield Path(hub_home).expanduser() / "hub"
    else:
        yield Path(environ.get("XDG_CACHE_HOME") or home / ".cache").expanduser() / "huggingface" / "hub"

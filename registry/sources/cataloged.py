"""The catalog as a source of models."""

from __future__ import annotations

from registry.catalog import (
    Catalog,
    CatalogEntry,
    CatalogFile,
    LocalSpec,
    PackageCheckpointSpec,
    PackagePartsSpec,
    Role,
)
from registry.errors import ModelNotFound
from registry.manifest import LICENSE_LAYER, MODEL_LAYER
from registry.name import ModelName
from registry.progress import Notice
from registry.sources.resolved import (
    CheckpointFile,
    ConvertedCheckpoint,
    LocalFile,
    Place,
    ResolvedFile,
    ResolvedModel,
    WheelFile,
    WheelPart,
    WheelParts,
)

_MEDIA_TYPES: dict[Role, str] = {"model": MODEL_LAYER, "license": LICENSE_LAYER}


class CatalogSource:
    """Models that the catalog knows by name, digest and size; needs no network to resolve them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def handles(self, name: ModelName) -> bool:
        return self._catalog.find(name) is not None

    async def resolve(self, name: ModelName, notice: Notice, *, insecure: bool = False) -> ResolvedModel:
        """Raises ModelNotFound."""
        entry = self._catalog.find(name)
        if entry is None:
            raise ModelNotFound(f"{name.short} is not in the catalog.", model=name.short)
        return ResolvedModel(tuple(_file(entry, file) for file in entry.files))


def _file(entry: CatalogEntry, file: CatalogFile) -> ResolvedFile:
    return ResolvedFile(_MEDIA_TYPES[file.role], _places(entry, file.role), file.digest, file.size, file.role)


def _places(entry: CatalogEntry, role: Role) -> tuple[Place, ...]:
    places: list[Place] = []
    for spec in entry.sources:
        if isinstance(spec, LocalSpec):
            places.append(LocalFile(spec.files[role]))
        elif isinstance(spec, PackagePartsSpec):
            files = [(WheelFile(part.distribution, part.version, part.file), part.size) for part in spec.parts]
            places.append(WheelParts(tuple(WheelPart(file, size) for file, size in files)))
        elif isinstance(spec, PackageCheckpointSpec):
            places.append(_checkpoint(spec))
        else:
            places.append(WheelFile(spec.distribution, spec.version, spec.files[role]))
    return tuple(places)


def _checkpoint(spec: PackageCheckpointSpec) -> ConvertedCheckpoint:
    files = [
        CheckpointFile(one.name, WheelFile(spec.distribution, spec.version, one.file), one.digest, one.size)
        for one in spec.files
    ]
    return ConvertedCheckpoint(tuple(files), spec.dtype)

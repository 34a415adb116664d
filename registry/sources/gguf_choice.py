"""Which files of a listing make up a model: quantizations, shards and projectors, told from their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.sources import quantization

LARGEST_SPLIT = 1000
"""More shards than anybody makes; a name may claim any number."""

_SHARD = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as a listing tells of it; nothing in it has been believed yet but its form."""

    path: str
    """Relative, with `/` between folders."""
    size: int
    sha256: str | None = None
    """64 lower-case hexadecimal characters, where the listing has them."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a repository: its file, or its shards in order."""

    files: tuple[ListedFile, ...]
    quantization: str | None
    missing: int = 0
    """How many shards are not there."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        return self.quantization or self.files[0].name

    @property
    def names(self) -> frozenset[str]:
        """The file names by which it can be asked for, folded."""
        found = set()
        for file in self.files:
            name = file.name.lower()
            found |= {name, name.removesuffix(".gguf")}
            if match := _SHARD.fullmatch(name):
                found |= {match["prefix"], f"{match['prefix']}.gguf"}
        return frozenset(found)


def is_projector(file: ListedFile) -> bool:
    return _is_gguf(file) and "mmproj" in file.name.lower()


def shard_of(name: str) -> tuple[str, int, int] | None:
    """The common beginning, the number and the count that a shard's name tells; None for other names."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    return (match["prefix"], number, count) if 1 <= number <= count <= LARGEST_SPLIT else None


def shard_name(prefix: str, number: int, count: int) -> str:
    return f"{prefix}-{number:05d}-of-{count:05d}.gguf"


def variants(files: Iterable[ListedFile]) -> list[Variant]:
    """Every model among the files, best first for those who do not say which they want."""
    singles: list[Variant] = []
    groups: dict[tuple[str, int], dict[int, ListedFile]] = defaultdict(dict)
    for file in files:
        if not _is_gguf(file) or is_projector(file) or _is_statistics(file):
            continue
        shard = shard_of(file.path)
        if shard is None:
            singles.append(Variant((file,), _quantization(file)))
        else:
            prefix, number, count = shard
            groups[prefix, count][number] = file
    for (_, count), shards in groups.items():
        ordered = tuple(shards[number] for number in sorted(shards))
        singles.append(Variant(ordered, _quantization(ordered[0]), missing=count - len(shards)))
    return sorted(singles, key=_preference)


def choose(found: Sequence[Variant], tag: str | None) -> list[Variant]:
    """Those of `found` that a tag means, best first: a quantization or a file's name; None means the preferred one.

    Empty when the tag means none of them.
    """
    if tag is None:
        best = found[0].quantization if found else None
        return [variant for variant in found if variant.quantization == best]
    by_name = [variant for variant in found if tag.lower() in variant.names]
    if by_name:
        return by_name
    wanted = quantization.normal(tag)
    exact = [variant for variant in found if variant.quantization == wanted]
    return exact or [
        variant
        for variant in found
        if variant.quantization and quantization.without_mark(variant.quantization) == wanted
    ]


def choose_projector(files: Iterable[ListedFile], beside: ListedFile) -> ListedFile | None:
    """The projector for a model file: one of its own folder if there is any, in a precision that costs no quality."""
    found = [file for file in files if is_projector(file) and shard_of(file.path) is None]
    own = [file for file in found if file.folder == beside.folder]
    return min(own or found, key=_projector_preference, default=None)


def _is_gguf(file: ListedFile) -> bool:
    return file.name.lower().endswith(".gguf")


def _is_statistics(file: ListedFile) -> bool:
    """An importance matrix is no model, though it comes in the same format; models made with one say so as well."""
    return "imatrix" in file.name.lower() and quantization.find(file.name) is None


def _quantization(file: ListedFile) -> str | None:
    return quantization.find(file.name) or quantization.find(file.folder)


def _preference(variant: Variant) -> tuple[object, ...]:
    first = variant.files[0]
    return (
        variant.missing > 0,
        *quantization.rank(variant.quantization),
        first.path.count("/"),
        len(first.path),
        first.path,
    )


def _projector_preference(file: ListedFile) -> tuple[object, ...]:
    found = quantization.find(file.name)
    known = _PROJECTOR_ORDER.index(found) if found in _PROJECTOR_ORDER else len(_PROJECTOR_ORDER)
    return known, file.path.count("/"), file.path

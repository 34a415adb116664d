"""`puna adopt`: use the models that other programs keep on this machine, without a second copy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from cli.errors import FAILED, CliError, WrongUsage
from cli.formats import format_size
from cli.local_store import local_store, telling_errors
from cli.output import note, write_json, write_line, write_table
from cli.progress import progress_view
from cli.wire import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from registry.adopt import Adoption
    from registry.found_models import Findings, FoundModel
    from registry.store import ModelStore

_HOW_SHARED, _HOW_IN_PLACE, _HOW_COPIED = "shared", "in place", "copied"


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """What to adopt, and how."""

    place: str | None
    """A folder or a GGUF file; None: wherever other programs usually keep models."""
    name: str | None = None
    by_copy: bool = False
    force: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of what is printed."""

    name: str
    size: int
    how: str
    state: str
    origin: str

    @classmethod
    def of(cls, model: FoundModel, how: str, state: str) -> _Row:
        return cls(model.name.short, model.size, how, state, str(model.origin))

    def to_json(self) -> Json:
        return {"name": self.name, "size": self.size, "how": self.how, "state": self.state, "from": self.origin}


def list_adoptable(request: AdoptRequest) -> int | None:
    """Print what would be adopted, under which names; changes nothing."""
    from registry.adopt import foresee, shares

    store = local_store("adopt")
    rows = []
    with telling_errors():
        findings = _find(request, store)
        for model in findings.models:
            how = _HOW_COPIED if request.by_copy else _HOW_SHARED if shares(store, model) else _HOW_IN_PLACE
            rows.append(_Row.of(model, how, foresee(store, model).value))
    _print(rows, findings, as_json=request.as_json)
    return None if rows else FAILED


def adopt_models(request: AdoptRequest) -> int | None:
    """Adopt every model found; those that cannot be are told of, and make the command fail."""
    from registry.adopt import State, adopt
    from registry.errors import DiskFull, RegistryError, StoreReadOnly

    store = local_store("adopt")
    rows, failures = [], 0
    with telling_errors(), closing(progress_view()) as view:
        findings = _find(request, store)
        for model in findings.models:
            try:
                done = adopt(store, model, view.show, by_copy=request.by_copy, force=request.force)
            except (DiskFull, StoreReadOnly):
                raise
            except RegistryError as error:
                failures += 1
                note(f"{model.name.short} was not adopted from {model.origin}: {error.message}")
                continue
            state = "adopted" if done.state is State.NEW else done.state.value
            rows.append(_Row.of(model, _how(done), state))
            if done.state is State.TAKEN:
                failures += 1
                note(
                    f"{model.name.short} was not adopted from {model.origin}: another model has the name. "
                    "Replace it with --force, or adopt this one alone with --name."
                )
    _print(rows, findings, as_json=request.as_json)
    return FAILED if failures or findings.unusable or not rows else None


def list_references(*, as_json: bool) -> int | None:
    """Print the files that are used where another program keeps them, and whether they are still there."""
    store = local_store("adopt")
    rows: list[Json] = []
    with telling_errors():
        models = store.models()
        for digest, reference in store.blobs.places.references.all():
            names = [model.name.short for model in models if digest in {one.digest for one in model.manifest.layers}]
            is_damaged = store.blobs.is_damaged(digest, reference.size)
            state = "changed" if reference.state == "there" and is_damaged else reference.state
            rows.append({"models": names, "state": state, "file": str(reference.path), "digest": str(digest)})
    if as_json:
        write_json({"references": rows})
    elif rows:
        table = [(", ".join(row["models"]) or "-", row["state"], row["file"]) for row in rows]
        write_table(("MODEL", "STATE", "FILE"), table)
    else:
        write_line("No model uses a file of another program.")
    lost = [row for row in rows if row["state"] != "there"]
    if lost:
        note(
            "What is gone or changed has to come back as it was; else remove those models with `puna rm`, and adopt "
            "or fetch them again."
        )
    return FAILED if lost else None


def _find(request: AdoptRequest, store: ModelStore) -> Findings:
    from registry.adopt_places import default_places, find_models
    from registry.found_models import Findings

    if request.place is not None:
        places = [Path(request.place).expanduser().absolute()]
    else:
        places = default_places(os.environ, Path.home())
        if not places:
            raise CliError(
                "There are no models of Ollama, LM Studio or Hugging Face in the usual places; name a folder."
            )
    findings = Findings()
    for place in places:
        if place.resolve() == store.root.resolve():
            if request.place is not None:
                raise WrongUsage(f"{place} is the model store itself.")
            continue
        findings += find_models(place)
    return _renamed(findings, request.name) if request.name is not None else findings


def _renamed(findings: Findings, name: str) -> Findings:
    from registry.name import ModelName

    if len(findings.models) != 1:
        raise WrongUsage(f"--name is for one model; {len(findings.models)} were found. Name the file itself.")
    return replace(findings, models=(replace(findings.models[0], name=ModelName.parse(name)),))


def _how(done: Adoption) -> str:
    from registry.linking import Way

    shown = {Way.CLONE: _HOW_SHARED, Way.HARD_LINK: _HOW_SHARED, Way.REFERENCE: _HOW_IN_PLACE, Way.COPY: _HOW_COPIED}
    return " and ".join(dict.fromkeys(shown[way] for way in done.ways)) or "-"


def _print(rows: Sequence[_Row], findings: Findings, *, as_json: bool) -> None:
    skipped = [{"file": str(one.path), "reason": one.reason} for one in findings.unusable]
    if as_json:
        write_json({"models": [row.to_json() for row in rows], "unusable": skipped})
        return
    if rows:
        table = [(row.name, format_size(row.size), row.how, row.state, row.origin) for row in rows]
        write_table(("NAME", "SIZE", "HOW", "STATE", "FROM"), table)
    elif not skipped:
        write_line("No models were found there.")
    for one in skipped:
        note(f"Not adopted: {one['file']}: {one['reason']}")

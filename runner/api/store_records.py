"""What is told of the store's files: plans of pulls, verdicts, garbage and partials, as JSON."""

from __future__ import annotations

from collections.abc import Callable

from registry.garbage import Collection, Garbage
from registry.partial_models import PartialModel
from registry.pull_plan import PullPlan
from registry.verify import FileState, FileVerdict, Verification
from runner.supervisor.likely_fit import LikelyFit
from runner.supervisor.likely_speed import most_tokens_per_second

Json = dict[str, object]


def plan_body(plan: PullPlan, likely_fit: Callable[[int], LikelyFit], memory_speed: float) -> Json:
    """What a pull would bring. `likely_fit` says how a model of so many bytes would go on this machine."""
    memory: Json = {"weights": plan.weights}
    if plan.weights:
        fit = likely_fit(plan.weights)
        memory["fit"] = fit.value
        if fit in (LikelyFit.MEMORY, LikelyFit.TIGHT):
            memory["most_tokens_per_second"] = round(most_tokens_per_second(plan.weights, memory_speed), 1)
    return {
        "model": plan.name.short,
        "dry_run": True,
        "files": [
            {
                "title": file.title,
                "type": file.media_type,
                "digest": file.digest,
                "size": file.size,
                "here": file.here,
                "to_fetch": file.to_fetch,
            }
            for file in plan.files
        ],
        "size": plan.size,
        "to_fetch": plan.to_fetch,
        "disk": {"free": plan.free, "keep_free": plan.keep_free, "fits": plan.fits_on_disk},
        "memory": memory,
    }


def verification_body(found: Verification) -> Json:
    return {
        "status": "verified",
        "models": [model.name.short for model in found.models],
        "damaged": len(found.unsound),
        "files": [_verdict(found, file) for file in found.files],
    }


def collection_body(found: Collection, *, is_dry_run: bool) -> Json:
    return {
        "dry_run": is_dry_run,
        "files": [_garbage(one) for one in found.files],
        "bytes": found.size,
        "too_young": {"files": len(found.too_young), "bytes": found.too_young_size},
    }


def partial_body(model: PartialModel) -> Json:
    return {
        "model": model.name.short if model.name is not None else None,
        "size": model.size,
        "completed": model.completed,
        "age_seconds": round(model.age_seconds),
        "active": model.is_active,
        "files": [
            {
                "title": file.title,
                "digest": file.digest,
                "size": file.size,
                "completed": file.completed,
                "active": file.is_active,
            }
            for file in model.files
        ],
    }


def _verdict(found: Verification, file: FileVerdict) -> Json:
    told: Json = {
        "digest": str(file.digest),
        "size": file.size,
        "state": file.state.value,
        "damaged_bytes": file.damaged_bytes,
        "models": found.models_with(file.digest),
    }
    return told | ({"in_place": True} if file.in_place and file.state is not FileState.SOUND else {})


def _garbage(one: Garbage) -> Json:
    told: Json = {"path": str(one.path), "bytes": one.size, "kind": one.kind.value}
    if one.digest is not None:
        told["digest"] = str(one.digest)
    return told

"""`puna pull --dry-run`: what a pull would fetch, and whether there is room for it."""

from __future__ import annotations

from cli.connect import connect
from cli.formats import format_size
from cli.output import write_json, write_line, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import PlannedDisk, PlannedFile, PlannedMemory, PullPlanReply

_KINDS = {"model": "weights", "image.v1+json": "config", "license": "licence"}
_FITS = {
    "gpu": "runs wholly on the GPU",
    "memory": "fits into the memory of this machine",
    "tight": "fits into memory only when little else runs",
    "no": "does not fit into the memory of this machine",
}


def show_plan(source: str, given_name: str | None, *, insecure: bool, as_json: bool) -> None:
    plan = connect().plan_pull(source, given_name, insecure=insecure)
    if as_json:
        write_json(plan)
        return
    write_table(("FILE", "KIND", "SIZE", "HERE", "TO FETCH"), [_row(file) for file in plan["files"]])
    write_line()
    for line in summary(plan):
        write_line(line)


def summary(plan: PullPlanReply) -> list[str]:
    """What the numbers come to: download, disk, memory and speed, a line each."""
    here = sum(file["here"] for file in plan["files"])
    fetch = "everything is here" if not plan["to_fetch"] else f"{format_size(plan['to_fetch'])} to fetch"
    if here and plan["to_fetch"]:
        fetch += f", {format_size(here)} are here"
    if plan["to_fetch"] > plan["size"]:
        fetch += ", of which the model is made here"
    if any(file["size"] is None for file in plan["files"]):
        fetch += "; the size of some files is told only when they are fetched"
    told = [f"Download: {fetch}", f"Disk: {_disk(plan['disk'])}", f"Memory: {_memory(plan['memory'])}"]
    speed = plan["memory"].get("most_tokens_per_second")
    if speed:
        rounded = f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
        told.append(f"Speed: at most {rounded} tokens a second on the CPU, which cannot read the weights faster")
    return told


def _row(file: PlannedFile) -> tuple[str, ...]:
    def shown(size: int | None) -> str:
        return "?" if size is None else format_size(size) if size else "-"

    return file["title"], _kind(file["type"]), shown(file["size"]), shown(file["here"]), shown(file["to_fetch"])


def _kind(media_type: str) -> str:
    last = media_type.rpartition(".image.")[2]
    return next((word for ending, word in _KINDS.items() if media_type.endswith(ending)), last)


def _disk(disk: PlannedDisk) -> str:
    verdict = "fits" if disk["fits"] else "does not fit"
    return f"{verdict}; {format_size(disk['free'])} are free, of which {format_size(disk['keep_free'])} stay free"


def _memory(memory: PlannedMemory) -> str:
    if "fit" not in memory:
        return "nothing is known of the weights yet"
    return f"{format_size(memory['weights'])} of weights, which {_FITS.get(memory['fit'], memory['fit'])}"

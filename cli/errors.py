"""What can go wrong in a command, and the exit code that tells it.

CliError
├─ WrongUsage             the command line or a Modelfile says something impossible
├─ BrokenConfiguration    PUNA_HOST or config.toml cannot be used
├─ DaemonUnreachable      nothing answers, or what answers is not the daemon
├─ DaemonFailedToStart    with the exit code the daemon ended with
└─ ApiError               the daemon said no: its code, sentence and facts
"""

from __future__ import annotations

FAILED = 1
WRONG_USAGE = 2
DISK_FULL = 28
ADDRESS_IN_USE = 48
MODEL_NOT_FOUND = 66
UNREACHABLE = 69
ENGINE_CRASHED = 70
NOT_ALLOWED = 77
BROKEN_CONFIGURATION = 78
INTERRUPTED = 130

_EXIT_CODES = {
    # What the daemon finds wrong in a request was typed here.
    "invalid_request": WRONG_USAGE,
    "disk_full": DISK_FULL,
    "model_not_found": MODEL_NOT_FOUND,
    "registry_unreachable": UNREACHABLE,
    "registry_error": UNREACHABLE,
    "server_shutdown": UNREACHABLE,
    "engine_crashed": ENGINE_CRASHED,
    "unauthorized": NOT_ALLOWED,
    "forbidden": NOT_ALLOWED,
    "host_forbidden": NOT_ALLOWED,
    "origin_forbidden": NOT_ALLOWED,
    "registry_forbidden": NOT_ALLOWED,
    "store_read_only": NOT_ALLOWED,
}

_WAYS_OUT = {
    "model_not_found": "`puna list` shows the models that are here; `puna pull NAME` fetches one.",
    "disk_full": "Make room, remove models with `puna rm`, or keep them on another disk with PUNA_MODELS.",
    "registry_unreachable": "Check the network, then try again.",
    "digest_mismatch": "Try again; if it goes on, the source itself is damaged.",
    "queue_full": "Try again in a moment.",
    "server_shutdown": "Try again: the next command starts the daemon anew.",
    "engine_crashed": "Try again; the daemon's log tells more.",
    "insufficient_memory": "Unload other models with `puna stop NAME`, or ask for a smaller num_ctx.",
    "model_corrupt": "`puna repair NAME` fetches what is damaged; a model that was made here has to be created again.",
    "host_forbidden": "Check PUNA_HOST.",
}


class CliError(Exception):
    """An error for people: `message` says what happened and what to do about it."""

    exit_code = FAILED

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if exit_code is not None:
            self.exit_code = exit_code


class WrongUsage(CliError):
    exit_code = WRONG_USAGE


class BrokenConfiguration(CliError):
    exit_code = BROKEN_CONFIGURATION


class DaemonUnreachable(CliError):
    exit_code = UNREACHABLE


class DaemonFailedToStart(CliError):
    exit_code = UNREACHABLE


class ApiError(CliError):
    """The daemon's own error. `code` is empty when something else than Puna sent it."""

    def __init__(self, sentence: str, code: str, facts: dict[str, object], request_id: str = "") -> None:
        super().__init__(_with_way_out(sentence, code), _EXIT_CODES.get(code, FAILED))
        self.sentence = sentence
        self.code = code
        self.facts = facts
        self.request_id = request_id


def _with_way_out(sentence: str, code: str) -> str:
    sentence = sentence.strip() or "The daemon refused without saying why."
    if sentence[-1] not in ".!?…":
        sentence += "."
    way_out = _WAYS_OUT.get(code)
    if code == "internal" or way_out is None or "`puna " in sentence:
        return sentence
    return f"{sentence} {way_out}"

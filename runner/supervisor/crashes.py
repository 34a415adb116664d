"""CrashLog: how often each model's process died lately, and how long to wait before starting it again."""

from __future__ import annotations

from dataclasses import dataclass

from runner.supervisor.policy import crashes_in_a_row, restart_delay

FORGET_SECONDS = 600.0


class CrashLog:
    """By the key of a model; times are those of the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._crashes: dict[str, _Crashes] = {}

    def note(self, key: str, *, lived_seconds: float, now: float) -> None:
        """Count a crash of a process that was ready for so long."""
        before = self._crashes.get(key)
        count = crashes_in_a_row(0 if before is None else before.in_a_row, lived_seconds)
        recent = {k: crashes for k, crashes in self._crashes.items() if now - crashes.at < FORGET_SECONDS}
        self._crashes = {**recent, key: _Crashes(count, now)}

    def not_before(self, key: str) -> float:
        """When the next start may be tried."""
        crashes = self._crashes.get(key)
        return 0.0 if crashes is None else crashes.at + restart_delay(crashes.in_a_row)


@dataclass(frozen=True, slots=True)
class _Crashes:
    in_a_row: int
    at: float

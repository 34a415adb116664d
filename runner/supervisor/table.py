"""Table: the models that are loaded or should be, and the machine they share."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.supervisor.memory import Gpus, Machine
from runner.supervisor.residents import Resident


@dataclass(slots=True)
class Table:
    """One for a daemon; only the supervisor and its helpers change it, and only between awaits."""

    machine: Machine
    gpus: Gpus = field(default_factory=Gpus)
    residents: dict[str, Resident] = field(default_factory=dict)
    uses: int = 0

    def touch(self, resident: Resident) -> None:
        """It was used now."""
        # Counted, not timed: some event loops' clocks tick in milliseconds.
        self.uses += 1
        resident.last_used = self.uses

"""What creating a model asks of those who have processes to do heavy work in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from registry.importance_matrix import ImportanceMatrix


class Workshop(Protocol):
    """Makes files. Closing one of its generators ends the work; whoever asked removes the target."""

    def quantize(
        self, files: Sequence[Path], target: Path, file_type: str, matrix: ImportanceMatrix | None = None
    ) -> AsyncGenerator[float, None]:
        """Write the model in `files`, shards in order, to `target` in another type; gives fractions done.

        `matrix` tells which weights matter most. Raises RegistryError, or an error with a `code` of its owner's.
        """
        ...

    def calibrate(self, files: Sequence[Path], text: Path, target: Path) -> AsyncGenerator[float, None]:
        """Let the model read `text`, and write an importance matrix of what it computed to `target`. As `quantize`."""
        ...

    def convert(
        self, folder: Path, target: Path, adapter_of: Mapping[str, object] | None = None
    ) -> AsyncGenerator[float, None]:
        """Write the checkpoint in `folder` to `target` as GGUF; gives fractions done. Raises as `quantize`.

        With `adapter_of`, which describes a model as its config.json would, it is a LoRA adapter for that.
        """
        ...

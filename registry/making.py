"""The heavy steps of creating a model: converting, computing an importance matrix, quantizing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from registry.adapter_files import described_base
from registry.digest import Digest
from registry.errors import ModelInvalid, Unsupported
from registry.gguf_metadata import GgufMetadata, read_gguf
from registry.importance_matrix import ImportanceMatrix, check_importance, read_importance_matrix
from registry.ingredients import Ingredients
from registry.manifest import ADAPTER_LAYER, DRAFT_LAYER, MODEL_LAYER
from registry.parts import check_adapter
from registry.progress import Progress
from registry.scratch import Scratch
from registry.workshop import Workshop

_NO_DIGEST = "0000000000000000000"
"""What clients are told in place of the digest of a file that is being made."""


class Making:
    """Has the workshop make files for one model, in the scratch folder, and puts them among its ingredients.

    Every step tells its progress. Closing one ends its work. Without a workshop all of them raise Unsupported.
    """

    def __init__(self, ingredients: Ingredients, workshop: Workshop | None, scratch: Scratch) -> None:
        self._ingredients = ingredients
        self._workshop = workshop
        self._scratch = scratch
        self._matrix: ImportanceMatrix | None = None

    async def convert(self, files: Mapping[str, Digest]) -> AsyncGenerator[Progress, None]:
        """Make the weights of a checkpoint."""
        status = "converting model"
        yield Progress(status)
        if self._workshop is None:
            raise Unsupported("Checkpoints are not converted here.", field="files")
        folder, total = await asyncio.to_thread(self._lay_out, files)
        target = await asyncio.to_thread(self._scratch.path, "converted.gguf")
        async with contextlib.aclosing(_tell(status, total, self._workshop.convert(folder, target))) as steps:
            async for progress in steps:
                yield progress
        self._ingredients.add_made(MODEL_LAYER, target, await asyncio.to_thread(read_gguf, target))

    async def convert_adapter(self, number: int, files: Mapping[str, Digest]) -> AsyncGenerator[Progress, None]:
        """Make an adapter for the weights that there are by now."""
        if self._workshop is None:
            raise Unsupported("Adapters are not converted here.", field="adapters")
        folder, total = await asyncio.to_thread(self._lay_out, files)
        target = await asyncio.to_thread(self._scratch.path, f"adapter-{number}.gguf")
        model = self._ingredients.metadata()
        work = self._workshop.convert(folder, target, described_base(model))
        async with contextlib.aclosing(_tell("converting adapter", total, work)) as steps:
            async for progress in steps:
                yield progress
        metadata = await asyncio.to_thread(read_gguf, target)
        check_adapter(metadata, model)
        self._ingredients.add_made(ADAPTER_LAYER, target, metadata)

    def take_matrix(self, path: Path) -> None:
        """Quantize the weights with this importance matrix; blocks. Raises ModelInvalid or InvalidRequest."""
        matrix = read_importance_matrix(path)
        check_importance(matrix, self._ingredients.metadata().tensors)
        self._matrix = matrix

    async def calibrate(self, text: Digest) -> AsyncGenerator[Progress, None]:
        """Compute an importance matrix from an uploaded text, and take it."""
        if self._workshop is None:
            raise Unsupported("Importance matrices are not computed here.", field="calibration")
        files = await asyncio.to_thread(self._ingredients.named_files, MODEL_LAYER, self._scratch)
        source = await asyncio.to_thread(self._ingredients.uploaded_one, text, "calibration")
        target = await asyncio.to_thread(self._scratch.path, "importance.gguf")
        work = self._workshop.calibrate(files, source, target)
        size = self._ingredients.metadata().weights_size
        async with contextlib.aclosing(_tell("computing importance matrix", size, work)) as steps:
            async for progress in steps:
                yield progress
        await asyncio.to_thread(self.take_matrix, target)

    async def quantize(self, media_type: str, file_type: str) -> AsyncGenerator[Progress, None]:
        """Bring the model's weights, or its draft model's, into another type."""
        before = self._ingredients.metadata(media_type)
        if before.file_type_name == file_type:
            return
        if self._workshop is None:
            raise Unsupported("Models are not quantized here.", field="quantize")
        is_draft = media_type == DRAFT_LAYER
        status = f"quantizing {before.file_type_name} {'draft ' if is_draft else ''}model to {file_type}"
        files = await asyncio.to_thread(self._ingredients.named_files, media_type, self._scratch)
        target = await asyncio.to_thread(self._scratch.path, f"quantized-{'draft' if is_draft else 'model'}.gguf")
        # What a matrix says holds for the model that it was made for.
        work = self._workshop.quantize(files, target, file_type, None if is_draft else self._matrix)
        async with contextlib.aclosing(_tell(status, before.weights_size, work)) as steps:
            async for progress in steps:
                yield progress
        yield Progress("verifying conversion")
        after = await asyncio.to_thread(read_gguf, target)
        if after.file_type_name != file_type or _shapes(after) != _shapes(before):
            raise ModelInvalid("The quantized file is not what it should be.")
        self._ingredients.add_made(media_type, target, after)

    def _lay_out(self, files: Mapping[str, Digest]) -> tuple[Path, int]:
        """A folder with uploaded files under their own names, and their size. Raises InvalidRequest."""
        sources = self._ingredients.uploaded(files)
        folder = self._scratch.link({name: path for name, (path, _) in sources.items()})
        return folder, sum(size for _, size in sources.values())


async def _tell(status: str, total: int, fractions: AsyncGenerator[float, None]) -> AsyncGenerator[Progress, None]:
    yield Progress(status, _NO_DIGEST, total, 0)
    async with contextlib.aclosing(fractions):
        async for fraction in fractions:
            yield Progress(status, _NO_DIGEST, total, int(fraction * total))


def _shapes(metadata: GgufMetadata) -> dict[str, Sequence[int]]:
    return {tensor.name: tensor.shape for tensor in metadata.tensors}

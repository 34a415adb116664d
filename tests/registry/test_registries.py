"""Which hosts may be asked, and what a challenge says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest, RegistryForbidden
from registry.registries import (
    Registries,
    RegistryEntry,
    api_host,
    host_of,
    is_public,
    is_same_registry,
    normal_host,
    split_url,
)
from registry.sources.challenge import Challenge, read_challenges
from registry.sources.host_rules import HostRules


def listed(*hosts: str, insecure: bool = False) -> Registries:
    return Registries({host: RegistryEntry(host, insecure) for host in hosts})


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Registry.Example.com", "registry.example.com"),
        ("example.com:443", "example.com"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_hosts_are_compared_in_one_form(text: str, host: str) -> None:
    assert normal_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "a b", "a/b", "user@host", "host:0", "host:65536", "a..b", "[x]:1", "host:", "a:b:1"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is no host"):
        normal_host(text)


@given(st.text(max_size=40))
def test_whatever_is_taken_for_a_host_makes_an_address_of_that_host(text: str) -> None:
    try:
        host = normal_host(text)
    except InvalidRequest:
        return
    assert host_of(split_url(f"https://{host}/v2/")) == host


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1", "not an address", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


def test_a_host_that_is_not_listed_must_be_public_and_protected() -> None:
    rules = Registries()
    rules.check_scheme("https://registry.example.com/v2/")
    rules.check_address("https://registry.example.com/v2/", "93.184.216.34")
    assert rules.verifies_tls("https://registry.example.com/v2/")
    with pytest.raises(RegistryForbidden, match=r"`puna registry add registry\.example\.com --insecure`"):
        rules.check_scheme("http://registry.example.com/v2/")
    with pytest.raises(RegistryForbidden, match=r"`puna registry add registry\.example\.com`"):
        rules.check_address("https://registry.example.com/v2/", "10.0.0.1")


def test_a_listed_host_may_be_anywhere_and_an_insecure_one_unprotected() -> None:
    rules = listed("lan.example.com:5000")
    rules.check_address("https://lan.example.com:5000/", "10.0.0.1")
    assert rules.verifies_tls("https://lan.example.com:5000/")
    with pytest.raises(RegistryForbidden):
        rules.check_scheme("http://lan.example.com:5000/")
    rules = listed("lan.example.com:5000", insecure=True)
    rules.check_scheme("http://lan.example.com:5000/")
    assert not rules.verifies_tls("https://lan.example.com:5000/")


def test_another_port_of_a_listed_host_is_another_host() -> None:
    with pytest.raises(RegistryForbidden):
        listed("lan.example.com:5000").check_address("https://lan.example.com/", "10.0.0.1")


def test_insecure_for_one_call_counts_for_listed_hosts_alone() -> None:
    opened = listed("lan.example.com").with_insecure("lan.example.com")
    opened.check_scheme("http://lan.example.com/")
    with pytest.raises(RegistryForbidden, match="puna registry add other"):
        listed("lan.example.com").with_insecure("other.example.com")


def test_docker_hub_is_one_registry_under_its_names() -> None:
    assert api_host("docker.io") == "registry-1.docker.io"
    assert listed("docker.io").find("registry-1.docker.io") is not None
    assert is_same_registry("auth.docker.io", "registry-1.docker.io")
    assert not is_same_registry("auth.docker.io", "registry.example.com")


@pytest.mark.parametrize("url", ["ftp://a/", "https://", "https://a:0/", "https://a:99999/", "https://[x]/", "a", ""])
def test_what_is_no_web_address_is_not_asked(url: str) -> None:
    with pytest.raises(RegistryForbidden):
        split_url(url)


@pytest.mark.parametrize("url", ["https://localhost/", "https://127.0.0.1:1/", "https://[::1]/", "https://2130706433/"])
async def test_names_are_looked_up_before_they_are_asked(url: str) -> None:
    with pytest.raises(RegistryForbidden):
        await HostRules(Registries()).check(url)
    await HostRules(listed(host_of(split_url(url)))).check(url)


async def test_a_name_that_nobody_knows_is_left_to_the_connection_or_its_proxy() -> None:
    await HostRules(Registries()).check("https://nobody.invalid/")


# --- challenges ---


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [Challenge("basic")]),
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t?x=1,2",service="s, t",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a/t?x=1,2", "service": "s, t", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            'Negotiate abc==, Basic realm="a \\"b\\"", bearer realm=c',
            [Challenge("negotiate"), Challenge("basic", {"realm": 'a "b"'}), Challenge("bearer", {"realm": "c"})],
        ),
        ("Negotiate, Basic", [Challenge("negotiate"), Challenge("basic")]),
        ('Bearer realm="x', [Challenge("bearer")]),
        ("=x", []),
    ],
)
def test_challenges_are_read(header: str, challenges: list[Challenge]) -> None:
    assert read_challenges(header)[: len(challenges)] == challenges


@given(st.text(max_size=200) | st.text(alphabet='ab ="\\,', max_size=60))
def test_any_header_is_read_without_a_fuss(header: str) -> None:
    for challenge in read_challenges(header):
        assert challenge.scheme == challenge.scheme.lower() != ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["basic", "bearer", "digest"]),
            st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=10), min_size=1, max_size=3),
        ),
        max_size=4,
    )
)
def test_what_is_written_as_it_should_be_is_read_back(written: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{key}={quoted(value)}" for key, value in parameters.items())
        for scheme, parameters in written
    )
    assert read_challenges(header) == [Challenge(scheme, parameters) for scheme, parameters in written]

"""The file of API keys: what is kept of them, who changes it, and what the daemon sees of that."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api_keys import KEY_FILE, MOST_KEYS, ApiKey, KeyFile, KeyFileError, KeyRefused, KeyRing, KeyScope

BOTH = (KeyScope.INFER, KeyScope.READ)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "config" / KEY_FILE)


def test_a_key_is_known_by_its_whole_text_alone(file: KeyFile) -> None:
    ring = KeyRing(file)
    key, text = file.create("laptop", BOTH)
    assert ring.find(text) == key
    for wrong in (
        "", key.id, text[:-1], text + "0", text.upper(), f" {text}", f"{text}\n", text.replace("puna_", "puna-"),
        f"puna_{key.id}_{'0' * 48}", f"puna_00000000_{text.rpartition('_')[2]}", "none", "sk-123",
    ):  # fmt: skip
        assert ring.find(wrong) is None


def test_the_file_does_not_hold_what_opens_the_door(file: KeyFile) -> None:
    key, text = file.create("laptop", BOTH)
    written = file.path.read_text()
    assert text not in written
    assert text.rpartition("_")[2] not in written
    assert KeyRing(file).find(key.sha256) is None
    if os.name == "posix":
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_keys_differ_and_are_kept_in_their_order(file: KeyFile) -> None:
    made = [file.create(name, [KeyScope.MANAGE, KeyScope.INFER]) for name in ("one", "two", "three")]
    assert len({text for _, text in made}) == len({key.id for key, _ in made}) == 3
    assert file.read() == tuple(key for key, _ in made)
    assert {key.scopes for key in file.read()} == {(KeyScope.INFER, KeyScope.MANAGE)}


def test_a_key_that_is_removed_opens_nothing_and_the_others_still_do(file: KeyFile) -> None:
    ring = KeyRing(file)
    (first, first_text), (second, second_text) = file.create("first", BOTH), file.create("second", BOTH)
    assert ring.find(first_text) == first
    assert file.remove("first") == first
    assert (ring.find(first_text), ring.find(second_text)) == (None, second)
    assert file.remove(second.id) == second
    assert ring.find(second_text) is None
    with pytest.raises(KeyRefused, match="no key second"):
        file.remove("second")


def test_a_key_made_while_the_daemon_runs_is_known_at_once(file: KeyFile) -> None:
    ring = KeyRing(file)
    assert ring.find(f"puna_{'0' * 8}_{'0' * 48}") is None
    for number in range(20):
        key, text = file.create(f"key {number}", BOTH)
        assert ring.find(text) == key
    file.path.unlink()
    assert ring.find(text) is None


@pytest.mark.parametrize("name", ["", " ", "a ", " a", "a\nb", "a\x1b[31m", "a\u2028b", "n" * 65])
def test_a_name_that_cannot_be_shown_is_refused(file: KeyFile, name: str) -> None:
    with pytest.raises(KeyRefused, match="name"):
        file.create(name, BOTH)
    assert not file.path.exists()


def test_a_name_is_given_once(file: KeyFile) -> None:
    file.create("Annas Rechner", BOTH)
    with pytest.raises(KeyRefused, match="already"):
        file.create("Annas Rechner", [KeyScope.READ])
    assert len(file.read()) == 1


def test_there_is_a_limit(file: KeyFile) -> None:
    key, _ = file.create("first", BOTH)
    many = [msgspec.structs.replace(key, id=f"{number:08x}", name=str(number)) for number in range(MOST_KEYS)]
    file.path.write_bytes(msgspec.json.encode({"keys": many}))
    with pytest.raises(KeyRefused, match="remove one first"):
        file.create("one more", BOTH)


def test_many_at_once_lose_no_key(file: KeyFile) -> None:
    with ThreadPoolExecutor(8) as threads:
        texts = [text for _, text in threads.map(lambda number: file.create(f"key {number}", BOTH), range(40))]
    ring = KeyRing(file)
    assert all(ring.find(text) for text in texts)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_to_a_file_kept_elsewhere_stays_one(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "keys.json"
    kept.parent.mkdir()
    (tmp_path / KEY_FILE).symlink_to(kept)
    file = KeyFile(tmp_path / KEY_FILE)
    _, text = file.create("laptop", BOTH)
    assert file.path.is_symlink() and kept.is_file()
    assert KeyRing(file).find(text)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b'{"keys": 1}', b'{"keys": [], "more": 1}', b'{"keys": [{"id": "00000000"}]}',
        b'{"keys": []}' + b" " * (1 << 20),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_lets_nobody_in_and_is_not_written_over(file: KeyFile, content: bytes) -> None:
    _, text = file.create("laptop", BOTH)
    ring = KeyRing(file)
    assert ring.find(text)
    file.path.write_bytes(content)
    for act in (file.read, lambda: ring.find(text), lambda: file.create("new", BOTH), lambda: file.remove("laptop")):
        with pytest.raises(KeyFileError, match=r"keys\.json"):
            act()
    assert file.path.read_bytes() == content


def test_two_keys_with_one_id_are_none(file: KeyFile) -> None:
    key, _ = file.create("first", BOTH)
    file.path.write_bytes(msgspec.json.encode({"keys": [key, msgspec.structs.replace(key, name="second")]}))
    with pytest.raises(KeyFileError, match="two keys have one id"):
        file.read()


def test_what_stands_in_the_way_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("in the way")
    for act in (
        lambda: KeyFile(tmp_path / "config" / KEY_FILE).create("laptop", BOTH),
        KeyFile(tmp_path).read,
        lambda: KeyRing(KeyFile(tmp_path / "config" / KEY_FILE)).find(f"puna_{'0' * 8}_{'0' * 48}"),
    ):
        with pytest.raises(KeyFileError, match=str(tmp_path)):
            act()


@given(st.text())
def test_no_text_is_a_key_by_chance(text: str) -> None:
    assert KeyRing(KeyFile(Path("there-is-none.json"))).find(text) is None


@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(msgspec.json.encode))
def test_whatever_stands_in_the_file_is_keys_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = KeyFile(tmp_path_factory.getbasetemp() / KEY_FILE)
    file.path.write_bytes(content)
    try:
        keys = file.read()
    except KeyFileError as error:
        assert str(error).endswith(".")
    else:
        assert all(isinstance(key, ApiKey) for key in keys)

"""`puna key`: who may use the daemon of this machine from others, and for what."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from cli.errors import BrokenConfiguration, CliError, WrongUsage
from cli.formats import format_age
from cli.output import note, write_json, write_line, write_table
from registry.paths import Paths
from runner.api_keys import ApiKey, KeyFile, KeyFileError, KeyRefused, KeyScope


def create_key(name: str, scopes: Sequence[str], *, is_background: bool, as_json: bool) -> None:
    """Make a key and print it, this once. A running daemon knows it with its next request."""
    wanted = _scopes(scopes)
    with _key_file() as file:
        key, text = file.create(name, wanted, is_background=is_background)
    if as_json:
        write_json({"id": key.id, "name": key.name, "scopes": list(key.scopes), "key": text})
        return
    note(f"The key {name} may {_may(key)}. It is shown this once:")
    write_line(text)


def list_keys(*, as_json: bool) -> None:
    """Print what is kept of the keys; themselves they are not."""
    with _key_file() as file:
        keys = file.read()
    if as_json:
        write_json({"keys": [_entry(key) for key in keys]})
        return
    now = datetime.now(UTC)
    rows = [
        [
            key.id,
            key.name,
            ",".join(key.scopes),
            "background" if key.is_background else "interactive",
            format_age(key.created_at, now),
        ]
        for key in keys
    ]
    write_table(["ID", "NAME", "SCOPES", "PRIORITY", "CREATED"], rows)


def remove_key(name_or_id: str) -> None:
    """Take a key back. Requests that are being answered go on."""
    with _key_file() as file:
        key = file.remove(name_or_id)
    note(f"The key {key.name} ({key.id}) is good for nothing any more.")


@contextmanager
def _key_file() -> Iterator[KeyFile]:
    try:
        yield KeyFile.beside(Paths.from_environment(os.environ).config_file)
    except KeyRefused as error:
        raise CliError(str(error)) from None
    except KeyFileError as error:
        raise BrokenConfiguration(str(error)) from None


def _scopes(texts: Sequence[str]) -> set[KeyScope]:
    words = [word.strip().lower() for text in texts for word in text.split(",") if word.strip()]
    allowed = ", ".join(KeyScope)
    try:
        scopes = set(map(KeyScope, words))
    except ValueError:
        raise WrongUsage(f"--scope is one or more of {allowed}, with commas between them.") from None
    if not scopes:
        raise WrongUsage(f"--scope names nothing; it is one or more of {allowed}.")
    return scopes


def _may(key: ApiKey) -> str:
    acts = {
        KeyScope.INFER: "use models",
        KeyScope.READ: "see what is here",
        KeyScope.MANAGE: "fetch, make and remove models",
    }
    *first, last = [act for scope, act in acts.items() if scope in key.scopes]
    return f"{', '.join(first)} and {last}" if first else last


def _entry(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "priority": "background" if key.is_background else "interactive",
        "created_at": key.created_at.isoformat(),
    }

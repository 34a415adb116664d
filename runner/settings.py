"""Settings: the one reader of the environment and `config.toml`.

Every option is declared once below, as a field with its kind, default, environment name and one
line of help; reading, checking and error texts are derived from that. A flag wins over the
environment, the environment over the file, the file over the default.

Environment names are `PUNA_` and the key in capitals (`PUNA_HOST`, `PUNA_KEEP_ALIVE`); options of
`[pull]` carry their table as well (`PUNA_PULL_PROXY`). `PUNA_HOME` and `PUNA_MODELS` are not
options: they say where this file and the models are (`registry.paths`).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT_PORT = 11434


class SettingsError(Exception):
    """A setting that cannot be used. `str()` says where it stands, what is wrong and what is allowed."""

    def __init__(
        self, message: str, *, file: Path | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + message)
        self.message = message
        self.file = file
        self.line = line
        self.key = key


class Address(NamedTuple):
    """Where the daemon listens, or where a client finds it."""

    scheme: str
    host: str
    port: int


def parse_host(text: str) -> Address:
    """Read `[scheme://]host[:port][/path]`; raises SettingsError.

    Without a scheme it is http on port 11434; a scheme brings its own port, 80 or 443. IPv6
    addresses stand with or without brackets. An empty host is the loopback address.
    """
    wrong = SettingsError(f"{text!r} is no address; one looks like 127.0.0.1:11434 or http://[::1]:8080")
    scheme, separator, rest = text.strip().strip("\"'").strip().rpartition("://")
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS or (separator and not scheme):
        raise wrong
    host, port_text = _split_port(rest.partition("/")[0])
    if re.search(r"[\s\[\]@?#\\%]", host) or (":" in host and not _is_ipv6(host)):
        raise wrong
    if port_text is None:
        port = _DEFAULT_PORTS[scheme]
    elif re.fullmatch(r"[0-9]{1,5}", port_text) and int(port_text) <= 65535:
        port = int(port_text)
    else:
        raise SettingsError(f"{port_text!r} in {text!r} is no port; a port is a number from 0 to 65535")
    return Address(scheme or "http", host or "127.0.0.1", port)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach `host`; `localhost` counts as such."""
    if host.lower() == "localhost":
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as `5m`, `1h30m`, `-1s` or `0`; raises ValueError."""
    match = re.fullmatch(r"([+-]?)(.*)", text.strip(), re.DOTALL)
    assert match is not None
    sign, body = match.groups()
    if body == "0":
        return 0.0
    parts = _DURATION_PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        if re.fullmatch(r"[0-9.]+", body):
            raise ValueError(f'{text!r} is no duration: its unit is missing, as in "5m" or "30s"')
        raise ValueError(f'{text!r} is no duration; one looks like "5m", "1h30m" or "500ms"')
    seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is too long for a duration")
    return -seconds if sign == "-" else seconds


_DEFAULT_PORTS = {"": DEFAULT_PORT, "http": 80, "https": 443}
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def _split_port(text: str) -> tuple[str, str | None]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed is not None and _is_ipv6(bracketed[1]):
        return bracketed[1], bracketed[2]
    if _is_ipv6(text):
        return text, None
    host, colon, port = text.rpartition(":")
    return (host, port) if colon else (text, None)


def _is_ipv6(text: str) -> bool:
    if text.count(":") < 2:
        return False
    import ipaddress  # here and above: too slow an import for a command line that rarely meets one

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


# --- kinds of values -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: what people may write, and how it is read. `read` raises ValueError or SettingsError."""

    allowed: str
    read: Callable[[object], Any]


def _read_address(value: object) -> Address:
    return parse_host(_read_text(value))


def _read_keep_alive(value: object) -> float:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value.strip()):
        seconds = parse_duration(value)
    else:
        seconds = _read_number(value)
    return math.inf if seconds < 0 else seconds


def _read_number(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("that is no number")
    return float(value)


def _read_seconds(value: object) -> float:
    seconds = _read_number(value)
    if seconds < 0:
        raise ValueError("that is below 0")
    return seconds


def _read_count(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("that is no whole number above 0")
    return value


def _read_size(value: object) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("that is no size")
        return int(float(match[1]) * _SIZE_UNITS[(match[2] or "b").lower()])
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("that is no size")
    return value


def _read_switch(value: object) -> bool:
    if isinstance(value, str):
        value = _SWITCHES.get(value.strip().lower())
    if not isinstance(value, bool):
        raise ValueError("that is neither true nor false")
    return value


def _read_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, list | tuple):
        raise ValueError("that is no list")
    return tuple(_read_text(part) for part in value)


def _read_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("that is no text")
    return value.strip()


def _read_file(value: object) -> Path:
    path = Path(_read_text(value)).expanduser()
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?b|[kmgt]ib)?", re.IGNORECASE)
_SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

ADDRESS = Kind("host[:port], such as 127.0.0.1:11434", _read_address)
KEEP_ALIVE = Kind("a duration such as 5m, a number of seconds, 0 (not at all) or -1 (for ever)", _read_keep_alive)
SECONDS = Kind("a number of seconds, 0 or more", _read_seconds)
COUNT = Kind("a whole number above 0", _read_count)
SIZE = Kind("a number of bytes, or a size such as 64MiB", _read_size)
SWITCH = Kind("true or false", _read_switch)
TEXTS = Kind("a list of texts (separated by commas in the environment)", _read_texts)
TEXT = Kind("a text", _read_text)
FILE = Kind("the path of a file", _read_file)

# --- every option, once --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """The declaration of one option."""

    table: str
    key: str
    default: object
    """As it would be written in the file; None: unset."""
    environment: str
    kind: Kind
    help: str


def _option(kind: Kind, default: object, environment: str, help: str, *, key: str | None = None) -> Any:
    return dataclasses.field(
        default=None if default is None else kind.read(default),
        metadata={"kind": kind, "written": default, "environment": environment, "help": help, "key": key},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    address: Address = _option(  # noqa: RUF009 - what it returns is a field
        ADDRESS, "127.0.0.1:11434", "PUNA_HOST",
        "Where the daemon listens and where clients look for it.", key="host",
    )  # fmt: skip
    max_body_bytes: int = _option(
        SIZE, "64MiB", "PUNA_MAX_BODY_BYTES",
        "Largest request body; blobs are streamed and not counted.",
    )  # fmt: skip

    @property
    def host(self) -> str:
        return self.address.host

    @property
    def port(self) -> int:
        return self.address.port


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    origins: tuple[str, ...] = _option(
        TEXTS, [], "PUNA_ORIGINS",
        "Web origins that may use the API besides those on this machine.",
    )  # fmt: skip
    insecure: bool = _option(
        SWITCH, False, "PUNA_INSECURE",
        "Allow an address that other machines reach, though everyone there may then do everything.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    max_waiting_per_model: int = _option(
        COUNT, 256, "PUNA_MAX_WAITING_PER_MODEL",
        "Requests that may wait for one model; more are refused.",
    )  # fmt: skip
    max_waiting: int = _option(
        COUNT, 1024, "PUNA_MAX_WAITING",
        "Requests that may wait for all models together.",
    )  # fmt: skip
    deadline_seconds: float = _option(
        SECONDS, 600, "PUNA_DEADLINE_SECONDS",
        "How long a request waits for its model before it is given up; 0 is for ever.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    keep_alive: float = _option(
        KEEP_ALIVE, "5m", "PUNA_KEEP_ALIVE",
        "How long a model stays loaded after its last request.",
    )  # fmt: skip
    max_sequences: int = _option(
        COUNT, 16, "PUNA_MAX_SEQUENCES",
        "Requests that one model answers at the same time.",
    )  # fmt: skip
    watchdog_seconds: float = _option(
        SECONDS, 60, "PUNA_WATCHDOG_SECONDS",
        "A model's process that makes no progress for so long is ended; 0 is never.",
    )  # fmt: skip
    drain_seconds: float = _option(
        SECONDS, 30, "PUNA_DRAIN_SECONDS",
        "How long running answers may still take when the daemon stops.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSettings:
    idle_timeout_seconds: float = _option(
        SECONDS, 120, "PUNA_PULL_IDLE_TIMEOUT_SECONDS",
        "A download that brings nothing for so long is given up.",
    )  # fmt: skip
    keep_free_bytes: int = _option(
        SIZE, "1GiB", "PUNA_PULL_KEEP_FREE_BYTES",
        "Disk space that a download leaves free.",
    )  # fmt: skip
    proxy: str | None = _option(
        TEXT, None, "PUNA_PULL_PROXY",
        "Proxy for downloads, as http://host:port.",
    )  # fmt: skip
    ca_bundle: Path | None = _option(  # noqa: RUF009
        FILE, None, "PUNA_PULL_CA_BUNDLE",
        "Certificates to trust in downloads, as one PEM file.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One `[models."NAME"]` table. `options` are checked where a request's options are."""

    keep_alive: float | None = None
    preload: bool = False
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a daemon. Without arguments: those of an empty file."""

    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    queue: QueueSettings = QueueSettings()
    worker: WorkerSettings = WorkerSettings()
    pull: PullSettings = PullSettings()
    models: Mapping[str, ModelSettings] = dataclasses.field(default_factory=dict)
    """By the names as they are written in the file; `model()` knows which names are the same."""

    def model(self, name: str) -> ModelSettings:
        """The table of a model: `smollm2`, `SmolLM2:latest` and `library/smollm2` are one name."""
        wanted = _fold_model_name(name)
        for written, section in self.models.items():
            if _fold_model_name(written) == wanted:
                return section
        return ModelSettings()


_SECTIONS: Mapping[str, type[Any]] = {
    "server": ServerSettings,
    "access": AccessSettings,
    "queue": QueueSettings,
    "worker": WorkerSettings,
    "pull": PullSettings,
}
_MODEL_KINDS = {"keep_alive": KEEP_ALIVE, "preload": SWITCH}

# --- reading -------------------------------------------------------------------------------------


def declared_options() -> Iterator[Option]:
    """Every option outside `[models]`, in the order of the file."""
    for table in _SECTIONS:
        yield from _options_of(table).values()


def load_settings(
    config_file: Path, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None
) -> Settings:
    """Read everything; raises SettingsError at the first thing that is wrong.

    `overrides` are flags by `table.key` (`server.host`), their values written as in the file;
    None stands for a flag that was not given. A missing file is an empty one.
    """
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    for name in flags.keys() - {f"{option.table}.{option.key}" for option in declared_options()}:
        raise SettingsError(f"there is no setting {name!r}", key=name)
    file = _ConfigFile(config_file)
    file.refuse_unknown((), {*_SECTIONS, "models"})
    sections: dict[str, Any] = {}
    for table, section in _SECTIONS.items():
        options = _options_of(table)
        written = file.table((table,))
        file.refuse_unknown((table,), {option.key for option in options.values()})
        values = {}
        for field_name, option in options.items():
            flag = f"{table}.{option.key}"
            variable = environ.get(option.environment, "").strip().strip("\"'").strip()
            if flag in flags:
                values[field_name] = _read(option.kind, flags[flag], f"--{option.key.replace('_', '-')}")
            elif variable:
                values[field_name] = _read(option.kind, variable, option.environment)
            elif option.key in written:
                values[field_name] = file.read(option.kind, (table, option.key))
        sections[table] = section(**values)
    return Settings(**sections, models=_read_models(file))


def _options_of(table: str) -> dict[str, Option]:
    options = {}
    for field in dataclasses.fields(_SECTIONS[table]):
        told = field.metadata
        key = told["key"] or field.name
        options[field.name] = Option(table, key, told["written"], told["environment"], told["kind"], told["help"])
    return options


def _read_models(file: _ConfigFile) -> dict[str, ModelSettings]:
    models = {}
    for name in file.table(("models",)):
        path = ("models", name)
        written = file.table(path)
        known = {key: file.read(kind, (*path, key)) for key, kind in _MODEL_KINDS.items() if key in written}
        options = {key: value for key, value in written.items() if key not in _MODEL_KINDS}
        models[name] = ModelSettings(**known, options=options)
    return models


def _read(kind: Kind, value: object, key: str, *, file: Path | None = None, line: int | None = None) -> Any:
    try:
        return kind.read(value)
    except (ValueError, SettingsError) as error:
        reason = error.message if isinstance(error, SettingsError) else str(error)
        shown = repr(value) if len(repr(value)) <= 80 else "the value"
        raise SettingsError(
            f"{key} cannot be {shown}: {reason}. Allowed: {kind.allowed}", file=file, line=line, key=key
        ) from None


class _ConfigFile:
    """The parsed file, and where in it things stand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._document: dict[str, Any] = {}
        try:
            self._text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            raise SettingsError("the file is not written in UTF-8", file=path) from None
        except OSError as error:
            raise SettingsError(f"the file cannot be read ({error.strerror})", file=path) from None
        import tomllib

        try:
            self._document = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            reason, _, place = str(error).partition(" (at ")
            line = re.match(r"line ([0-9]+)", place)
            at_end = self._text.count("\n") + 1
            raise SettingsError(
                f"this is not TOML: {reason[:1].lower()}{reason[1:]}",
                file=path,
                line=int(line[1]) if line else at_end,
            ) from None

    def table(self, path: tuple[str, ...]) -> dict[str, Any]:
        """The table at `path`, empty when it is absent."""
        value: Any = self._document
        for name in path:
            value = value.get(name, {})
        if not isinstance(value, dict):
            raise self._error(f"{_written_path(path)} is a table: its options stand below a line {_header(path)}", path)
        return value

    def refuse_unknown(self, path: tuple[str, ...], known: set[str]) -> None:
        for key in self.table(path):
            if key not in known:
                allowed = ", ".join(sorted(known) if path else map(_bracketed, sorted(known)))
                what = f"key {key!r} in {_header(path)}" if path else f"table or key {key!r}"
                raise self._error(f"unknown {what}. Allowed: {allowed}", (*path, key))

    def read(self, kind: Kind, path: tuple[str, ...]) -> Any:
        value = self.table(path[:-1])[path[-1]]
        return _read(kind, value, _written_path(path), file=self._path, line=self._line(path))

    def _error(self, message: str, path: tuple[str, ...]) -> SettingsError:
        return SettingsError(message, file=self._path, line=self._line(path), key=_written_path(path))

    def _line(self, path: tuple[str, ...]) -> int | None:
        """The line that sets `path`, found by reading each line alone; the parser tells no places."""
        import tomllib

        inside: tuple[str, ...] = ()
        closest: tuple[int, int] | None = None
        for number, line in enumerate(self._text.splitlines(), 1):
            is_header = line.lstrip().startswith("[")
            try:
                parsed = tomllib.loads(line if is_header else line.partition("=")[0] + " = 0")
            except tomllib.TOMLDecodeError:
                continue
            here = _first_path(parsed)
            if is_header:
                inside = here
            else:
                here = inside + here
            shared = len(here) if here == path[: len(here)] else len(path) if here[: len(path)] == path else 0
            if shared and (closest is None or shared > closest[0]):
                closest = (shared, number)
        return None if closest is None else closest[1]


def _first_path(document: Mapping[str, Any]) -> tuple[str, ...]:
    path = []
    value: Any = document
    while isinstance(value, dict | list) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key = next(iter(value))
        path.append(key)
        value = value[key]
    return tuple(path)


def _written_path(path: tuple[str, ...]) -> str:
    return ".".join(name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"' for name in path)


def _header(path: tuple[str, ...]) -> str:
    return f"[{_written_path(path)}]"


def _bracketed(name: str) -> str:
    return f'[{name}."NAME"]' if name == "models" else f"[{name}]"


def _fold_model_name(name: str) -> str:
    # Deliberately not registry.name: the command line reads settings before it needs the registry.
    folded = name.strip().lower()
    last = folded.rpartition("/")[2]
    if ":" not in last:
        folded += ":latest"
    return folded.removeprefix("registry.ollama.ai/").removeprefix("library/")

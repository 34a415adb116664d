"""Settings: every option, and the one reader of the environment and `config.toml`.

Every option is declared once below, as a field with its kind, default and one line of help; its name
in the environment, reading, checking and error texts are derived from that. A flag wins over the
environment, the environment over the file, the file over the default.

Environment names are `PUNA_` and the key in capitals (`PUNA_HOST`, `PUNA_KEEP_ALIVE`); options of
`[cache]`, `[pull]` and `[store]` carry their table as well (`PUNA_PULL_PROXY`). `PUNA_HOME` and `PUNA_MODELS` are not
options: they say where this file and the models are (`registry.paths`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config_file import ConfigFile, SettingsError, read_value
from runner.notation import Address, is_loopback
from runner.setting_kinds import (
    ADDRESS,
    API_KEY,
    CACHE_TYPE,
    COUNT,
    CREDENTIALS,
    FILE,
    FLASH_ATTENTION,
    FOLDER,
    FOLDERS,
    KEEP_ALIVE,
    REGISTRY_HOST,
    SECONDS,
    SIZE,
    SWITCH,
    TEXT,
    TEXTS,
    Kind,
)

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


def _option(kind: Kind, default: object, help: str, *, key: str | None = None) -> Any:
    return dataclasses.field(
        default=None if default is None else kind.read(default),
        repr=not kind.is_secret,
        metadata={"kind": kind, "written": default, "help": help, "key": key},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    address: Address = _option(  # noqa: RUF009 - what it returns is a field
        ADDRESS, "127.0.0.1:11434", "Where the daemon listens and where clients look for it.", key="host"
    )
    max_body_bytes: int = _option(SIZE, "64MiB", "Largest request body; blobs are streamed and not counted.")

    @property
    def host(self) -> str:
        return self.address.host

    @property
    def port(self) -> int:
        return self.address.port


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    origins: tuple[str, ...] = _option(TEXTS, [], "Web origins that may use the API besides those on this machine.")
    insecure: bool = _option(
        SWITCH, False, "Need no API keys at an address that other machines reach: everyone there may do everything."
    )
    api_key: str | None = _option(
        API_KEY, None, "The key that the command line sends to the daemon at [server] host; the daemon needs none."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    max_waiting_per_model: int = _option(COUNT, 256, "Requests that may wait for one model; more are refused.")
    max_waiting: int = _option(COUNT, 1024, "Requests that may wait for all models together.")
    deadline_seconds: float = _option(
        SECONDS, 600, "How long a request waits for its model before it is given up; 0 is for ever."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    keep_alive: float = _option(KEEP_ALIVE, "5m", "How long a model stays loaded after its last request.")
    max_sequences: int = _option(COUNT, 16, "Requests that one model answers at the same time.")
    watchdog_seconds: float = _option(
        SECONDS, 60, "A model's process that makes no progress for so long is ended; 0 is never."
    )
    drain_seconds: float = _option(SECONDS, 30, "How long running answers may still take when the daemon stops.")
    step_target_ms: float = _option(
        SECONDS, 80, "Milliseconds that a step of a model should take at most while an answer is read along."
    )
    kv_cache_type: str | None = _option(
        CACHE_TYPE,
        None,
        "How models keep what they have read, unless one says otherwise: f16, or smaller and less exact.",
    )
    flash_attention: str | None = _option(
        FLASH_ATTENTION,
        None,
        "Whether models compute attention in the fused way, unless one says otherwise: auto, on or off.",
    )

    @property
    def model_options(self) -> dict[str, str]:
        """What these settings say of every model, as options."""
        told = {"kv_cache_type": self.kv_cache_type, "flash_attention": self.flash_attention}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    memory_bytes: int | None = _option(
        SIZE,
        None,
        "Memory in which each loaded model keeps beginnings of prompts; by default an eighth of the machine's.",
    )
    disk_bytes: int = _option(
        SIZE, "8GiB", "Disk space in which they outlive the model and the daemon; 0 keeps none there."
    )
    directory: Path | None = _option(  # noqa: RUF009
        FOLDER, None, "Where they are kept; by default in Puna's cache folder."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSettings:
    parallel: int = _option(COUNT, 8, "Connections over which one file is fetched.")
    idle_timeout_seconds: float = _option(SECONDS, 120, "A download that brings nothing for so long is given up.")
    keep_free_bytes: int = _option(SIZE, "1GiB", "Disk space that a download leaves free.")
    proxy: str | None = _option(TEXT, None, "Proxy for downloads, as http://host:port.")
    ca_bundle: Path | None = _option(  # noqa: RUF009
        FILE, None, "Certificates to trust in downloads, as one PEM file."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    layers: tuple[Path, ...] = _option(
        FOLDERS, [], "Model stores, of Puna or Ollama, whose models are used as well and never changed."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One `[models."NAME"]` table. `options` are checked where a request's options are."""

    keep_alive: float | None = None
    preload: bool = False
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """One `[registries."HOST[:PORT]"]` table: a host that may be asked wherever it is."""

    insecure: bool = False
    """Plain HTTP and certificates that nobody vouches for are allowed."""
    mirror: str | None = None
    """Another host that is asked first."""
    credentials: str | None = dataclasses.field(default=None, repr=False)
    """`user:password`, or `$NAME` for an environment variable that holds that."""
    key: bool = False
    """It knows accounts by the keys of machines, as Ollama's registry does; `puna registry key` prints this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a daemon. Without arguments: those of an empty file."""

    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    queue: QueueSettings = QueueSettings()
    worker: WorkerSettings = WorkerSettings()
    cache: CacheSettings = CacheSettings()
    pull: PullSettings = PullSettings()
    store: StoreSettings = StoreSettings()
    models: Mapping[str, ModelSettings] = dataclasses.field(default_factory=dict)
    """By the names as they are written in the file; `model()` knows which names are the same."""
    registries: Mapping[str, RegistrySettings] = dataclasses.field(default_factory=dict)
    """By host and port in lower case, as they were at the start; `load_registries` reads them anew."""

    @property
    def needs_keys(self) -> bool:
        """Whether every request needs an API key: other machines can reach the address, and nobody said otherwise."""
        return not is_loopback(self.server.host) and not self.access.insecure

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
    "cache": CacheSettings,
    "pull": PullSettings,
    "store": StoreSettings,
}
_NAMED_IN_FULL = ("cache", "pull", "store")
"""Tables that stand in the names of environment variables, whose keys alone would say too little."""
_MODEL_KINDS = {"keep_alive": KEEP_ALIVE, "preload": SWITCH}
_REGISTRY_KINDS = {"insecure": SWITCH, "mirror": REGISTRY_HOST, "credentials": CREDENTIALS, "key": SWITCH}

# --- reading -------------------------------------------------------------------------------------


def declared_options() -> Iterator[Option]:
    """Every option outside `[models]`, in the order of the file."""
    for table in _SECTIONS:
        yield from _options_of(table).values()


def load_settings(
    config_file: Path,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    *,
    check_option: Callable[[str, object], None] | None = None,
) -> Settings:
    """Read everything; raises SettingsError at the first thing that is wrong.

    `overrides` are flags by `table.key` (`server.host`), their values written as in the file;
    None stands for a flag that was not given. A missing file is an empty one. `check_option` raises
    ValueError for an option of a model that cannot be; without it such options are taken as they stand.
    """
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    for name in flags.keys() - {f"{option.table}.{option.key}" for option in declared_options()}:
        raise SettingsError(f"there is no setting {name!r}", key=name)
    file = ConfigFile(config_file)
    file.refuse_unknown((), {*_SECTIONS, "models", "registries"})
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
                values[field_name] = read_value(option.kind, flags[flag], f"--{option.key.replace('_', '-')}")
            elif variable:
                values[field_name] = read_value(option.kind, variable, option.environment)
            elif option.key in written:
                values[field_name] = file.read(option.kind, (table, option.key))
        sections[table] = section(**values)
    return Settings(**sections, models=_read_models(file, check_option), registries=_read_registries(file))


def load_registries(config_file: Path) -> dict[str, RegistrySettings]:
    """The `[registries]` table as the file has it now; raises SettingsError."""
    return _read_registries(ConfigFile(config_file))


def _options_of(table: str) -> dict[str, Option]:
    options = {}
    for field in dataclasses.fields(_SECTIONS[table]):
        told = field.metadata
        key = told["key"] or field.name
        options[field.name] = Option(table, key, told["written"], _variable(table, key), told["kind"], told["help"])
    return options


def _variable(table: str, key: str) -> str:
    return f"PUNA_{table}_{key}".upper() if table in _NAMED_IN_FULL else f"PUNA_{key}".upper()


def _read_models(file: ConfigFile, check_option: Callable[[str, object], None] | None) -> dict[str, ModelSettings]:
    models = {}
    for name in file.table(("models",)):
        path = ("models", name)
        written = file.table(path)
        known = {key: file.read(kind, (*path, key)) for key, kind in _MODEL_KINDS.items() if key in written}
        options = {key: value for key, value in written.items() if key not in _MODEL_KINDS}
        for key, value in options.items():
            try:
                if check_option is not None:
                    check_option(key, value)
            except ValueError as error:
                raise file.error(str(error), (*path, key)) from None
        models[name] = ModelSettings(**known, options=options)
    return models


def _read_registries(file: ConfigFile) -> dict[str, RegistrySettings]:
    registries: dict[str, RegistrySettings] = {}
    for name in file.table(("registries",)):
        path = ("registries", name)
        try:
            host = REGISTRY_HOST.read(name)
        except ValueError as error:
            raise file.error(
                f"{name!r} cannot be a registry: {error}. Allowed: {REGISTRY_HOST.allowed}", path
            ) from None
        if host in registries:
            raise file.error(f"the registry {host} is listed twice", path)
        file.refuse_unknown(path, set(_REGISTRY_KINDS))
        written = file.table(path)
        registries[host] = RegistrySettings(
            **{key: file.read(kind, (*path, key)) for key, kind in _REGISTRY_KINDS.items() if key in written}
        )
    return registries


def _fold_model_name(name: str) -> str:
    # Deliberately not registry.name: the command line reads settings before it needs the registry.
    folded = name.strip().lower()
    last = folded.rpartition("/")[2]
    if ":" not in last:
        folded += ":latest"
    return folded.removeprefix("registry.ollama.ai/").removeprefix("library/")

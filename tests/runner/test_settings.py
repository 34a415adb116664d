"""Settings: what may be written where, and what is said when it may not."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.config_file import SettingsError
from runner.options import check_option
from runner.settings import ModelSettings, Settings, declared_options, load_settings


def load(folder: Path, text: str, environ: dict[str, str] | None = None, **flags: object) -> Settings:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, environ or {}, {name.replace("__", "."): value for name, value in flags.items()})


def refused(folder: Path, text: str, environ: dict[str, str] | None = None, **flags: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(folder, text, environ, **flags)
    return caught.value


def test_without_a_file_everything_has_its_documented_default(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "absent.toml", {})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 11434)
    assert settings.server.max_body_bytes == 64 * 2**20
    assert (settings.access.origins, settings.access.insecure, settings.access.api_key) == ((), False, None)
    assert (settings.queue.max_waiting_per_model, settings.queue.max_waiting) == (256, 1024)
    assert settings.queue.deadline_seconds == 600
    assert (settings.worker.keep_alive, settings.worker.max_sequences) == (300, 16)
    assert (settings.worker.watchdog_seconds, settings.worker.drain_seconds) == (60, 30)
    assert (settings.pull.idle_timeout_seconds, settings.pull.keep_free_bytes) == (120, 2**30)
    assert (settings.pull.proxy, settings.pull.ca_bundle) == (None, None)
    assert settings.models == {}


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = '[server]\nhost = "127.0.0.1:1"\n[worker]\nkeep_alive = "1m"\nmax_sequences = 3\n'
    environ = {"PUNA_HOST": "127.0.0.1:2", "PUNA_KEEP_ALIVE": "120"}
    settings = load(tmp_path, text, environ, server__host="127.0.0.1:3", worker__max_sequences=None)
    assert settings.server.port == 3
    assert settings.worker.keep_alive == 120
    assert settings.worker.max_sequences == 3


def test_an_empty_variable_is_an_unset_one(tmp_path: Path) -> None:
    assert load(tmp_path, "", {"PUNA_HOST": "  ", "PUNA_ORIGINS": '"http://a, http://b"'}).access.origins == (
        "http://a",
        "http://b",
    )


def test_model_tables_are_found_under_every_spelling_of_a_name(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[models."SmolLM2"]\nkeep_alive = -1\npreload = true\nnum_ctx = 4096\nstop = ["a"]\n'
        '[models."a/b:q4"]\nnum_gpu = 0\n',
    )
    expected = ModelSettings(keep_alive=math.inf, preload=True, options={"num_ctx": 4096, "stop": ["a"]})
    for name in ("smollm2", "smollm2:latest", "library/SMOLLM2"):
        assert settings.model(name) == expected
    assert settings.model("a/b:q4").options == {"num_gpu": 0}
    assert settings.model("a/b") == ModelSettings()


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("[sever]\nhost = 1", 1, "sever", "[server]"),
        ("\nhost = 1", 2, "host", "[server]"),
        ("[server]\n\nhots = 1", 3, "server.hots", "Allowed: host, max_body_bytes"),
        ("[server]\nhost = 5", 2, "server.host", "Allowed: host[:port]"),
        ('# [server]\n[server]\nhost = "a:b"', 3, "server.host", "'b' in 'a:b' is no port"),
        ("server.max_body_bytes = -1", 1, "server.max_body_bytes", "Allowed: a number of bytes"),
        ("server = { max_body_bytes = true }", 1, "server.max_body_bytes", "Allowed: a number of bytes"),
        ("server = 5", 1, "server", "[server]"),
        ('[worker]\nmax_sequences = 2\n\nwatchdog_seconds = "x"', 4, "worker.watchdog_seconds", "number"),
        ('[worker]\nkeep_alive = "5 minutes"', 2, "worker.keep_alive", "a duration such as 5m"),
        ("[worker]\nmax_sequences = 0", 2, "worker.max_sequences", "above 0"),
        ("[worker]\nmax_sequences = 1.5", 2, "worker.max_sequences", "above 0"),
        ("[worker]\ndrain_seconds = nan", 2, "worker.drain_seconds", "number of seconds"),
        ("[queue]\ndeadline_seconds = -5", 2, "queue.deadline_seconds", "0 or more"),
        ("[access]\ninsecure = 1", 2, "access.insecure", "true or false"),
        ("[access]\norigins = [1]", 2, "access.origins", "list of texts"),
        ('[pull]\nca_bundle = "/nowhere/x.pem"', 2, "pull.ca_bundle", "there is no such file"),
        ('[store]\nlayers = ["models"]', 2, "store.layers", "not absolute"),
        ('[cache]\ndisk_bytes = "much"', 2, "cache.disk_bytes", "that is no size"),
        ('[cache]\ndirectory = "here"', 2, "cache.directory", "not absolute"),
        ('[store]\nlayers = [5]', 2, "store.layers", "absolute paths of folders"),
        ('[models.a]\n[models."b:c"]\npreload = "maybe"', 3, 'models."b:c".preload', "true or false"),
        ('[models]\nsmollm2 = 5', 2, "models.smollm2", "[models.smollm2]"),
        ("[server\nhost = 1", 1, None, "not TOML"),
        ("[server]\nhost = 1\nhost = 2", 3, None, "not TOML"),
        ("[server]\nhost =", 2, None, "not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_line_key_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, key: str | None, said: str
) -> None:
    error = refused(tmp_path, text)
    assert (error.line, error.key) == (line, key)
    assert str(error).startswith(f"{tmp_path / 'config.toml'}:{line}: ")
    assert said in str(error)


def test_a_mistake_outside_the_file_names_its_flag_or_variable(tmp_path: Path) -> None:
    assert "PUNA_KEEP_ALIVE cannot be 'soon'" in str(refused(tmp_path, "", {"PUNA_KEEP_ALIVE": "soon"}))
    assert "--host cannot be 'a:b:c'" in str(refused(tmp_path, "", server__host="a:b:c"))
    assert "no setting 'server.colour'" in str(refused(tmp_path, "", server__colour="red"))


def test_layers_of_the_store_are_a_list_of_folders_and_in_the_environment_separated_as_paths_are(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    written = load(tmp_path, f"[store]\nlayers = ['{here}', '{there}']")
    assert written.store.layers == (here, there)
    assert load(tmp_path, "", {"PUNA_STORE_LAYERS": f"{there}{os.pathsep}{here}"}).store.layers == (there, here)


def test_what_is_said_of_all_models_is_one_of_a_few_words(tmp_path: Path) -> None:
    assert load(tmp_path, "").worker.model_options == {}
    settings = load(tmp_path, "[worker]\nkv_cache_type = 'q8_0'", {"PUNA_FLASH_ATTENTION": " ON "})
    assert settings.worker.model_options == {"kv_cache_type": "q8_0", "flash_attention": "on"}
    with pytest.raises(SettingsError, match="Allowed: f16, q8_0 or q4_0"):
        load(tmp_path, "[worker]\nkv_cache_type = 'q5_0'")


def test_a_file_that_is_no_text_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"[server]\n\xff\xfe")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings(file, {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path, {})


def test_every_option_is_declared_with_a_regular_environment_name_and_help(tmp_path: Path) -> None:
    options = list(declared_options())
    assert len({option.environment for option in options}) == len(options)
    for option in options:
        prefix = f"PUNA_{option.table.upper()}_" if option.table in ("cache", "pull", "store") else "PUNA_"
        assert option.environment == prefix + option.key.upper()
        assert re.fullmatch(r"[A-Z].{10,100}\.", option.help)
        if option.default is not None:  # what is said to be the default can be written, and is it
            written = str(option.default) if not isinstance(option.default, list) else ""
            assert load(tmp_path, "", {option.environment: written}) == Settings()


def test_settings_load_nothing_but_the_standard_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import runner.settings; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names - {'runner'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("written", "value"),
    [("1048576", 2**20), ("1MiB", 2**20), ("1 mib", 2**20), ("1.5kb", 1500), ("2GB", 2 * 10**9), ("0", 0)],
)
def test_sizes(tmp_path: Path, written: str, value: int) -> None:
    assert load(tmp_path, "", {"PUNA_MAX_BODY_BYTES": written}).server.max_body_bytes == value


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("num_ctxx = 5", "num_ctx"),
        ('temperature = "hot"', "temperature"),
        ("top_p = 7", "top_p"),
    ],
)
def test_a_models_option_that_cannot_be_is_told_with_its_line(tmp_path: Path, written: str, told: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[models."smollm2:135m"]\nnum_ctx = 512\n{written}\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=told) as caught:
        load_settings(file, {}, check_option=check_option)
    assert caught.value.line == 3
    assert load_settings(file, {}).model("smollm2:135m").options["num_ctx"] == 512, "only who can check them does"


@pytest.mark.parametrize(
    ("host", "insecure", "needed"),
    [
        ("127.0.0.1", "", False), ("localhost", "", False), ("[::1]:5", "", False), ("0.0.0.0", "", True),
        ("[::]", "", True), ("192.168.1.4", "no", True), ("my-machine", "", True), ("0.0.0.0", "1", False),
    ],
)  # fmt: skip
def test_keys_are_needed_wherever_others_can_come(host: str, insecure: str, needed: bool, tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "absent.toml", {"PUNA_HOST": host, "PUNA_INSECURE": insecure})
    assert settings.needs_keys is needed


def test_a_key_of_the_settings_is_not_shown(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "absent.toml", {"PUNA_API_KEY": "puna_0_secret"})
    assert settings.access.api_key == "puna_0_secret"
    assert "secret" not in repr(settings)

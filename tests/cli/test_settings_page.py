"""docs/settings.md tells every setting as it is declared; its example is a file that can be used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from registry.parameters import PARAMETERS
from runner.options import check_option
from runner.settings import Option, declared_options, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGINNING = """\
# Settings

All of them are optional. They stand in `config.toml`: in `$PUNA_HOME` where that is set, else in the configuration
folder of your system (`~/.config/puna` on Linux). What is wrong in it is told with its line when the daemon starts. A
flag wins over the environment, the environment over the file. The daemon reads them when it starts (after
`puna stop --daemon` the next command starts it anew), `[registries]` at each pull and push.

```toml
[worker]
keep_alive = "30m"

[cache]
disk_bytes = "2GiB"

[models."smollm2:135m"]
preload = true
temperature = 0.3
```

This page is written by `tests/cli/test_settings_page.py` from what `runner/settings.py` declares.
"""
END = """\
## `[models."NAME"]`

What holds for one model. Every option of a request can stand here as well (`temperature = 0.3`, `num_ctx = 8192`);
a request's own goes first.

| key | meaning |
| --- | --- |
| `keep_alive` | How long it stays loaded after its last request. |
| `preload` | Load it when the daemon starts. |

## `[registries."HOST[:PORT]"]`

Registries that are private, on this machine or without TLS; `puna registry add` writes these tables.

| key | meaning |
| --- | --- |
| `insecure` | Also over plain HTTP, or with a certificate that nobody vouches for. |
| `mirror` | Another registry that is asked first. |
| `credentials` | `user:password`, or `$NAME` for an environment variable that holds that. |
| `key` | It knows accounts by the keys of machines, as Ollama's does; `puna registry key` prints this one. |
"""
OPTIONS = """\
## Options of a request

They are given as `-o NAME=VALUE` to `puna run`, as `PARAMETER NAME VALUE` in a Modelfile, as `options` in `/api/chat`
and `/api/generate`, or in `[models."NAME"]`.

| option | what it may be |
| --- | --- |"""


def page() -> str:
    return "\n".join([BEGINNING, *sections(), END, OPTIONS, *options()])


def sections() -> Iterator[str]:
    for table, options in groupby(declared_options(), key=lambda option: option.table):
        yield f"## `[{table}]`\n\n| key | default | environment | meaning |\n| --- | --- | --- | --- |"
        yield "\n".join(map(row, options)) + "\n"


def options() -> Iterator[str]:
    for name in sorted(PARAMETERS):
        yield f"| `{name}` | {PARAMETERS[name].allowed} |"
    yield ""


def row(option: Option) -> str:
    return f"| `{option.key}` | {written(option.default)} | `{option.environment}` | {option.help} |"


def written(default: object) -> str:
    if default is None or default == []:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_page_is_what_is_declared() -> None:
    if os.environ.get("PUNA_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run this test with PUNA_WRITE_DOCS=1 to write the page anew"


def test_the_example_is_read(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", page(), re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    settings = load_settings(tmp_path / "config.toml", {}, check_option=check_option)
    assert settings.worker.keep_alive == 1800 and settings.cache.disk_bytes == 2 << 30
    assert settings.model("smollm2:135m").preload


def test_the_tables_of_names_are_whole() -> None:
    from runner.settings import _MODEL_KINDS, _REGISTRY_KINDS

    assert set(re.findall(r"^\| `([a-z_]+)` \|", END, re.MULTILINE)) == {*_MODEL_KINDS, *_REGISTRY_KINDS}

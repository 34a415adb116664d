"""Who may import whom, and who owns which third-party package."""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("cli", "registry", "runner")

# A module follows the line with the longest name that is its own or a parent's, and may import what
# stands there and what belongs to the same line.
ALLOWED: dict[str, set[str]] = {
    "registry": set(),
    "runner.errors": set(),
    "runner.sampling": set(),
    "runner.notation": set(),
    "runner.tasks": set(),
    "runner.adapters": set(),
    "runner.setting_kinds": {"runner.notation"},
    "runner.config_file": {"runner.setting_kinds"},
    "runner.settings": {"runner.config_file", "runner.setting_kinds", "runner.notation"},
    "runner.api_keys": {"registry.atomic_write"},
    "runner.registries": {"runner.settings", "runner.config_file", "registry"},
    "runner.sources": {"runner.registries", "runner.settings", "registry"},
    "runner.runtime_file": set(),
    "runner.http_protocol": set(),
    "runner.logs": {"runner.settings"},
    "runner.tidying": {"registry"},
    "runner.listening": {"registry.paths", "runner.runtime_file"},
    "runner.draft_model": set(),
    "runner.loaded_model": {"runner.draft_model"},
    "runner.engine": {
        "runner.adapters", "runner.draft_model", "runner.loaded_model", "runner.chat.types", "runner.sampling",
        "runner.errors",
    },
    "runner.messages": {
        "runner.chat.types", "runner.tasks", "runner.engine", "runner.loaded_model", "runner.sampling",
        "runner.errors",
    },
    "runner.jobs": {"runner.messages", "runner.errors"},
    "runner.chat": {
        "runner.adapters", "runner.sampling", "runner.tasks", "runner.errors", "registry.template_language",
    },
    "runner.worker": {
        "runner.adapters", "runner.draft_model",
        "runner.engine", "runner.loaded_model", "runner.messages", "runner.tasks", "runner.jobs", "runner.chat",
        "runner.sampling",
        "runner.errors", "runner.logs",
    },
    "runner.worker.__main__": {
        "runner.worker", "runner.llamacpp", "runner.logs", "runner.messages", "runner.jobs", "runner.engine",
    },
    "runner.llamacpp": {
        "runner.adapters", "runner.draft_model", "runner.engine", "runner.loaded_model", "runner.jobs",
        "runner.sampling", "runner.errors",
    },
    "runner.supervisor": {
        "runner.messages", "runner.tasks", "runner.jobs", "runner.engine", "runner.loaded_model",
        "runner.chat.types", "runner.sampling",
        "runner.errors", "runner.settings", "registry",
    },
    "runner.supervisor.types": {"runner.draft_model", "runner.engine", "runner.loaded_model", "runner.messages"},
    "runner.options": {"runner.supervisor.types", "runner.sampling", "runner.errors", "registry"},
    "runner.answers": {"runner.chat.types"},
    "runner.choices": {
        "runner.chat.types", "runner.engine", "runner.loaded_model", "runner.errors", "runner.supervisor",
        "registry.stored_model",
    },
    "runner.model_spec": {
        "runner.adapters", "runner.draft_model", "runner.errors", "runner.options", "runner.settings",
        "runner.supervisor.types", "registry",
    },
    "runner.model_lookup": {"runner.errors", "registry"},
    "runner.model_tasks": {
        "runner.model_lookup", "runner.model_spec", "runner.options", "runner.tasks", "runner.chat.types",
        "runner.supervisor", "runner.errors", "runner.settings", "registry",
    },
    "runner.model_messages": {"runner.chat.types", "runner.errors", "registry.stored_model"},
    "runner.calls": {"runner.chat.media", "runner.chat.types", "runner.sampling"},
    "runner.call_prompt": {
        "runner.calls", "runner.model_messages", "runner.chat.media", "runner.chat.types", "runner.errors",
        "registry.stored_model",
    },
    "runner.call_plan": {
        "runner.calls", "runner.call_prompt", "runner.model_lookup", "runner.model_spec", "runner.options",
        "runner.chat.types", "runner.supervisor.types", "runner.loaded_model", "runner.sampling", "runner.errors",
        "runner.settings", "registry",
    },
    "runner.long_prompts": {"runner.calls", "runner.chat.types", "runner.errors"},
    "runner.generate": {
        "runner.calls", "runner.call_plan", "runner.long_prompts", "runner.model_lookup", "runner.answers",
        "runner.choices", "runner.chat.types", "runner.supervisor", "runner.loaded_model", "runner.errors",
        "runner.settings", "registry.store",
    },
    "runner.receipt": {"runner.calls", "runner.generate", "runner.choices", "runner.chat.types"},
    "runner.api": {
        "runner.api_keys", "runner.receipt", "runner.calls", "runner.model_lookup",
        "runner.answers", "runner.choices", "runner.generate", "runner.model_tasks", "runner.tasks",
        "runner.options", "runner.engine", "runner.loaded_model", "runner.chat.types",
        "runner.chat.media", "runner.chat.template", "runner.supervisor", "runner.messages", "runner.sampling",
        "runner.errors", "runner.settings", "runner.config_file", "runner.notation", "runner.sources", "registry",
    },
    "runner.daemon": {
        "runner.api.app", "runner.api_keys", "runner.calls", "runner.generate", "runner.supervisor", "runner.settings",
        "runner.config_file",
        "runner.notation", "runner.errors", "runner.logs", "runner.listening", "runner.runtime_file",
        "runner.http_protocol", "runner.model_spec", "runner.tidying", "runner.sources", "registry",
    },
    "runner.__main__": {"runner.daemon", "runner.options", "runner.settings", "runner.config_file", "registry.paths"},
    "cli": {
        "registry.name", "registry.file_naming", "registry.modelfile", "registry.modelfile_text", "registry.parameters",
        "registry.paths", "registry.errors", "registry.sources.model_url",
        "runner.settings", "runner.config_file", "runner.setting_kinds", "runner.notation",
    },
    "cli.commands.serve": {
        "cli", "registry.paths", "runner.settings", "runner.config_file", "runner.daemon", "runner.notation",
        "runner.options",
    },
    # These work on files of this machine, with or without a daemon.
    "cli.local_store": {"cli", "registry", "runner.settings", "runner.config_file", "runner.runtime_file"},
    "cli.originals": {"cli", "registry"},
    "cli.commands.adopt": {"cli", "registry"},
    "cli.commands.export": {"cli", "registry"},
    "cli.commands.key": {"cli", "registry.paths", "runner.api_keys"},
    "cli.commands.registry": {
        "cli", "registry.errors", "registry.paths", "registry.sources.machine_key",
        "runner.settings", "runner.config_file", "runner.setting_kinds",
    },
}  # fmt: skip

OWNERS: dict[str, tuple[str, ...]] = {
    "llama_cpp": ("runner.llamacpp",),
    "llguidance": ("runner.llamacpp",),
    "numpy": ("runner.llamacpp", "registry.convert"),
    "jinja2": ("runner.chat",),
    "PIL": ("runner.worker.pictures",),
    "fastapi": ("runner.api",),
    "pydantic": ("runner.api",),
    "pydantic_core": ("runner.api",),
    "starlette": ("runner.api",),
    "python_multipart": ("runner.api.form_data",),
    "uvicorn": ("runner.daemon", "runner.http_protocol"),
    "uvloop": ("runner.daemon",),
    "msgspec": ("runner",),
    "xxhash": ("runner.worker.prefix_files",),
    "psutil": ("runner", "cli"),
    "httpx": ("registry", "cli"),
    "httpcore": ("registry.sources.http",),
    "cryptography": ("registry.sources.machine_key",),
    "filelock": ("registry", "cli", "runner.api_keys"),
    "packaging": ("registry",),
    "platformdirs": ("registry",),
    "gguf": ("registry.convert", "runner.llamacpp.calibrate"),
    "tomlkit": ("cli",),
    "typer": ("cli",),
    "click": ("cli",),
    "rich": ("cli",),
    "prompt_toolkit": ("cli",),
}

DIALECTS = ("ollama", "openai", "anthropic")


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))}


@functools.cache
def imports_of(module: str) -> tuple[tuple[int, str], ...]:
    """Line and full name of everything a module imports, inside functions too."""
    return tuple(_imports_in(module))


def _imports_in(module: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, module.rpartition(".")[0])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in FILES else base


def line_for(module: str) -> str:
    return max((package for package in ALLOWED if is_within(module, package)), key=len, default="")


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_its_line_allows(module: str) -> None:
    line = line_for(module)
    is_empty = not FILES[module].read_text(encoding="utf-8").strip()
    assert line or is_empty, f"{module} has no line in ALLOWED"
    for number, name in imports_of(module):
        if name.partition(".")[0] in OURS:
            allowed = any(is_within(name, package) for package in (ALLOWED[line] | {line}))
            assert allowed, f"{FILES[module]}:{number}: {module} may not import {name}"


@pytest.mark.parametrize("module", FILES)
def test_third_party_packages_stay_with_their_owners(module: str) -> None:
    for number, name in imports_of(module):
        package = name.partition(".")[0]
        if package in OURS or package in sys.stdlib_module_names:
            continue
        assert package in OWNERS, f"{FILES[module]}:{number}: {package} has no owner in OWNERS"
        assert any(is_within(module, owner) for owner in OWNERS[package]), (
            f"{FILES[module]}:{number}: {module} may not import {package}"
        )


@pytest.mark.parametrize("start", ["runner.daemon", "runner.__main__", "cli.__main__"])
def test_the_daemon_and_the_command_line_never_reach_llama_cpp(start: str) -> None:
    seen: set[str] = set()
    open_ends = [start]
    while open_ends:
        module = open_ends.pop()
        if module in seen:
            continue
        seen.add(module)
        for _, name in imports_of(module):
            assert not is_within(name, "llama_cpp"), f"{module} imports {name}"
            open_ends += [parent for parent in FILES if is_within(name, parent)]
    assert len(seen) > 5
    assert not any(is_within(module, room) for module in seen for room in ("runner.llamacpp", "runner.worker"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_dialect_imports_another(dialect: str) -> None:
    others = [f"runner.api.{other}" for other in DIALECTS if other != dialect]
    for module in FILES:
        if is_within(module, f"runner.api.{dialect}"):
            for number, name in imports_of(module):
                assert not any(is_within(name, other) for other in others), f"{FILES[module]}:{number}: {name}"


def test_package_files_are_empty() -> None:
    for file in FILES.values():
        if file.name == "__init__.py":
            assert not file.read_text(encoding="utf-8").strip(), f"{file} is not empty"


def test_every_line_of_the_map_is_about_something() -> None:
    for line in ALLOWED:
        assert any(is_within(module, line) for module in FILES), f"{line} is in the map and nowhere else"

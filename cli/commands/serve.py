"""`puna serve`: the daemon in the foreground."""

from __future__ import annotations

import os
import sys


def serve(host: str | None, *, insecure: bool) -> int:
    """Run the daemon in this process until Ctrl-C or a signal; returns the exit code."""
    from cli.errors import BrokenConfiguration, WrongUsage
    from registry.paths import Paths
    from runner.config_file import SettingsError
    from runner.daemon import serve as serve_until_told
    from runner.notation import parse_host
    from runner.options import check_option
    from runner.settings import load_settings

    if host is not None:
        try:
            parse_host(host)
        except ValueError as error:
            raise WrongUsage(f"--host: {error}.") from None
    paths = Paths.from_environment(os.environ)
    overrides = {"server.host": host, "access.insecure": insecure or None}
    try:
        settings = load_settings(paths.config_file, os.environ, overrides, check_option=check_option)
    except SettingsError as error:
        raise BrokenConfiguration(str(error)) from None
    sys.stdout.flush()
    return serve_until_told(settings, paths)

"""The `puna` command: the one place where errors become exit codes."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command line; returns its exit code."""
    from cli.outcome import exit_code_of

    return exit_code_of(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

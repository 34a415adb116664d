"""The `puna` command: the one place where errors become exit codes."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command line; returns its exit code."""
    try:
        from cli.outcome import exit_code_of

        return exit_code_of(sys.argv[1:])
    except KeyboardInterrupt:
        # Also while the rest of the program is being read.
        from cli.errors import INTERRUPTED

        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

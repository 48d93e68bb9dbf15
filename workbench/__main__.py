"""`workbench` and `python -m workbench`: the screen without words, the commands with them.

Apart from the commands because the screen should not wait 80 ms for a parser that it never uses.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Entry point."""
    if len(sys.argv) > 1:
        from workbench import cli

        cli.main()
    from workbench import paths
    from workbench.tui import app

    raise SystemExit(app.main(paths.log_root()))


if __name__ == "__main__":
    main()

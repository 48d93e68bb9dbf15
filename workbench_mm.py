"""Entry point of the `workbench` command.

`PYTHONPATH` precedes the installed packages, and machine-learning repositories often have a
package called `results` or `engines`. This module has a name of its own; it imports our packages
from the folder that it lies in, and `sys.path` is then as it was.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

PACKAGES = ("workbench", "engines", "datasets_mm", "results")


def main() -> NoReturn:
    """Import our packages, then run the command."""
    root = str(Path(__file__).resolve().parent)
    sys.path.insert(0, root)
    try:
        for name in PACKAGES:
            import_module(name)
    finally:
        sys.path.remove(root)
    import_module("workbench.__main__").main()
    raise AssertionError("the command returns only by SystemExit")

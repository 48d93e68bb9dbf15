"""Run the notebooks of examples/ on the CPU, each in an empty folder, through nbclient.

python .ci/notebooks.py [NAME…]        exit code 1 if a cell fails
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[1] / "examples/notebooks"


def main(names: list[str]) -> int:
    """Entry point."""
    failures = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(
                notebook, timeout=1800, resources={"metadata": {"path": folder}}
            )
            try:
                client.execute()
            except CellExecutionError as error:
                failures += 1
                print(error)
        outputs = sum(len(cell.get("outputs", ())) for cell in notebook.cells)
        print(f"{path.name}: {len(notebook.cells)} cells, {outputs} outputs")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""docs/documents.md names what exists, with a state in every row; code of how-tos passes lint."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from engines import catalog
from workbench.planning import plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/documents.md").read_text("utf-8")
STATES = ("works", "by tests", "not run", "open", "not applicable", "by intent")


def rows() -> list[list[str]]:
    """Cells of the tables of the documents, without headings and rules."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if len(row) == 4 and row[0] not in ("what they say", "what")]


def test_every_row_has_a_state() -> None:
    assert len(rows()) > 60
    for row in rows():
        assert any(state in row[3] for state in STATES) or "never checked" in row[3], row
        if row[3].startswith("open"):
            assert ":" in row[3] or row[2] != "–", f"no reason: {row}"


def test_presets_and_settings_exist() -> None:
    presets = set(plan.preset_files())
    for name in re.findall(r"`((?:vqa|weekly|siglip|ablation|audit)-[a-z0-9-]+)`", PAGE):
        assert name in presets, name
    settings = {
        key for engine in ("retrieval", "captioning", "vqa")
        for key in catalog.load(engine).Params.model_fields
    }  # fmt: skip
    for name in re.findall(r"`(\w+) = [^`]+`", PAGE):
        assert name in settings | set(plan.SuitePlan.model_fields), name


def test_code_of_the_howtos_passes_lint() -> None:
    howto = (ROOT / "docs/howto.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", howto, re.DOTALL)
    assert blocks
    place = "engines/captioning/metrics/length_ratio.py"  # where the how-to puts it
    for part in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *part, "--stdin-filename", place, "-"]
        for block in blocks:
            done = subprocess.run(
                command, input=block, cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr

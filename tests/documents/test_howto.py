"""The how-tos that change the code, followed word for word in a copy of the packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.test_commands import LONG, environment
from tests.fixtures.command_lines import ROOT

HOWTO = (ROOT / "docs/howto.md").read_text("utf-8")
pytestmark = LONG
PACKAGES = ("workbench", "engines", "datasets_mm", "results")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The packages without caches."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=ignored)
    for name in ("workbench_mm.py", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / "tree" / name)
    return tmp_path / "tree"


def section(title: str) -> str:
    """Text of a how-to."""
    return HOWTO.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def replace(file: Path, old: str, new: str, count: int = 1) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) >= count, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new), "utf-8")


def run_commands(title: str, tree: Path) -> str:
    """Output of the how-to's own command lines, with the workbench of `tree`."""
    start = f"import sys; sys.path.insert(0, {str(tree)!r}); import workbench_mm as w; w.main()"
    folder = tree.parent
    script = folder / "bin/workbench"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    script.chmod(0o755)
    variables = environment(folder, folder)
    variables["PATH"] = f"{script.parent}:{variables['PATH']}"
    lines = re.findall(r"^    (workbench .+)$", section(title), re.MULTILINE)
    assert lines
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)], cwd=folder, env=variables, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_a_metric_of_captions_is_added(tree: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", section("add a metric"), re.DOTALL)
    (tree / "engines/captioning/metrics/length_ratio.py").write_text(source)
    replace(
        tree / "engines/captioning/evaluation/evaluate.py", '"cider": "cider"}',
        '"cider": "cider", "length": "length_ratio"}',
    )  # fmt: skip
    params = tree / "engines/captioning/params.py"
    replace(params, '"siglip", "bertscore"', '"length", "siglip", "bertscore"', 2)
    assert "length ratio (en words)" in run_commands("add a metric", tree)


def test_an_engine_is_added(tree: Path) -> None:
    (tree / "engines/mine").mkdir()
    shutil.copy(tree / "engines/probe/__init__.py", tree / "engines/mine/__init__.py")
    replace(tree / "engines/catalog.py", '"vqa", "probe")', '"vqa", "probe", "mine")')
    shown = run_commands("add an engine", tree)
    assert "mine" in shown
    assert "52 steps" in shown or "sha256_mib_per_second" in shown

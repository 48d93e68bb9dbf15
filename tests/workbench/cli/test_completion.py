"""Shell completion: what is offered, that it never fails, and that the shell reaches it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.workbench.tui import sample_suites
from workbench.cli import completion


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A parser's context with a log root."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    sample_suites.write_records(tmp_path / "logs", 3)
    return SimpleNamespace(params={"log_root": tmp_path / "logs"})


def test_catalogs_are_offered_by_their_beginning() -> None:
    assert "emoji_train" in completion.complete_subsets("emoji_t")
    assert "clip-nano" in completion.complete_models("clip-")
    assert "demo" in completion.complete_presets("de")
    assert completion.complete_engines("ret") == ["retrieval"]
    assert completion.complete_filters("end:o") == ["end:ok"]
    assert completion.complete_report_kinds("s") == ["suite", "study"]


def test_settings_are_those_of_the_given_engine(context: SimpleNamespace) -> None:
    assert "epochs=" in completion.complete_settings(context, "ep")
    context.params["engine"] = ["retrieval"]
    assert completion.complete_settings(context, "max_new_tok") == []
    context.params["engine"] = ["captioning"]
    assert completion.complete_settings(context, "max_new_tok") == ["max_new_tokens="]


def test_runs_and_columns_are_those_of_the_log_root(context: SimpleNamespace) -> None:
    runs = completion.complete_runs(context, "weekly")
    assert len(runs) == 3
    assert "/02-retrieval" in runs[0]
    names = completion.complete_suites_and_runs(context, "weekly")
    assert names[-3:] == runs
    assert all("/" not in name for name in names[:-3])
    assert completion.complete_columns(context, "ep") == ["epoch", "epochs"]
    context.params["log_root"] = Path("/dev/null")
    assert completion.complete_runs(context, "") == []


def test_the_shell_reaches_it_without_the_screen(tmp_path: Path) -> None:
    environment = {
        "PATH": os.defpath, "HOME": str(tmp_path), "_WORKBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "workbench run --preset dem", "COMP_CWORD": "3", "TERM": "xterm",
    }  # fmt: skip
    code = (
        "import sys; sys.argv = ['workbench']; from workbench.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sorted({'torch', 'textual', 'rich'} & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=180,
        check=False, cwd=tmp_path,
    )  # fmt: skip
    assert {"demo", "demo-vqa"} <= {*done.stdout.split()}
    assert done.stderr.strip() == ""

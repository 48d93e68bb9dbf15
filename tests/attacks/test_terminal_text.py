"""Golden bytes: nothing that a log, a record, a model, an error or a file name holds drives the
terminal, whichever command shows it (CWE-150)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks import hostile

SEQUENCE = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z])?")
"""What rich's live table needs: CSI sequences alone."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose log root and catalogues were written by an attacker."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "logs").mkdir()
    return tmp_path


def run(here: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=here, capture_output=True, timeout=60,
        env={**os.environ, "WORKBENCH_LOG_ROOT": str(here / "logs"), **environment}, check=False,
    )  # fmt: skip


COMMANDS = [
    ["ps", "--all"],
    ["ps", "--all", "--json"],
    ["results", "list"],
    ["results", "list", "--json"],
    ["results", "show", "02"],
    ["results", "show", "02", "--json"],
    ["report", "weekly"],
    ["report", "weekly", "--lang", "ko"],
    ["attach", "weekly"],
    ["attach", "weekly", "--json"],
    ["data", "list"],
    ["data", "list", "--json"],
    ["models"],
    ["models", "--json"],
    ["presets"],
    ["run", "--preset", "bad", "--dry-run"],
    ["run", "--preset", "x\x1b]0;owned\x07\x1b[6n"],
    ["run", "-e", "probe", "-d", hostile.EVIL, "-m", hostile.EVIL],
    ["run", "nothing\x1b]0;owned\x07.toml"],
    ["data", "build", hostile.EVIL],
    ["results", "show", hostile.EVIL],
    ["stop", hostile.EVIL],
    ["bad\x1b]0;owned\x07", "x\x1b[6n"],
    ["doctor"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda w: ascii(" ".join(w))[1:40])
def test_no_command_lets_a_control_character_through(here: Path, words: list[str]) -> None:
    hostile.root(here / "logs", at_work=words[0] != "attach")
    hostile.catalogues(here / "config")
    done = run(here, *words)
    for output in (done.stdout, done.stderr):
        assert hostile.raw(output) == set()
        assert hostile.traces(output) == []
    assert done.stdout or done.stderr
    assert b"Traceback" not in done.stderr

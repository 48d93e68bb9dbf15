"""Copying: the order of the ways, and what is told when one fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.tui.system import clipboard

PYTHON_CAT = f"{sys.executable} -c \"import sys; open('{{}}', 'w').write(sys.stdin.read())\""


@pytest.fixture
def sent() -> list[str]:
    """What went to the terminal as OSC 52."""
    return []


def test_the_users_command_comes_first(tmp_path: Path, sent: list[str]) -> None:
    command = PYTHON_CAT.format(tmp_path / "copied")
    copied = clipboard.copy_text("값 1", {"TMUX": "x"}, sent.append, tmp_path / "f", command)
    assert (copied.target, copied.problems) == (f"by {sys.executable}", ())
    assert (tmp_path / "copied").read_text() == "값 1"
    assert sent == []


def test_tmux_comes_next_and_a_failure_is_told(
    tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmux = tmp_path / "tmux"
    tmux.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words; cat > {tmp_path}/buffer\n')
    tmux.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    copied = clipboard.copy_text("text", {"TMUX": "x"}, sent.append, tmp_path / "f", "no-such-cmd")
    assert copied.target == "by tmux"
    assert copied.problems == ("no-such-cmd: No such file or directory",)
    assert (tmp_path / "words").read_text() == "load-buffer -w -\n"
    assert (tmp_path / "buffer").read_text() == "text"
    tmux.write_text("#!/bin/sh\necho 'no server' >&2; exit 1\n")
    copied = clipboard.copy_text("text", {"TMUX": "x"}, sent.append, tmp_path / "f")
    assert copied.problems == ("tmux: no server",)
    assert sent == ["text"]


def test_the_terminal_gets_what_it_takes_and_a_file_the_rest(
    tmp_path: Path, sent: list[str]
) -> None:
    assert "OSC 52" in clipboard.copy_text("text", {}, sent.append, tmp_path / "f").target
    long = "x" * (clipboard.OSC52_BYTES + 1)
    copied = clipboard.copy_text(long, {}, sent.append, tmp_path / "f")
    assert copied.target == f"into {tmp_path / 'f'}"
    assert "74,995 bytes are more" in copied.problems[0]
    assert ((tmp_path / "f").read_text(), sent) == (long, ["text"])

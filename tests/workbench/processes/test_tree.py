"""The process tree of an engine: who belongs to it, and killing it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.wardens import until
from workbench.processes import tree


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(command, env={**os.environ, tree.TOKEN_NAME: "t-4711"})
    until(lambda: tree.processes_with_token("t-4711"), "the child's environment")
    yield child
    child.kill()
    child.wait()


def test_a_process_is_never_mistaken_for_another(sleeper: subprocess.Popen[bytes]) -> None:
    seen = tree.read_process(sleeper.pid)
    assert seen is not None
    wrong = seen._replace(start_ticks=seen.start_ticks - 1)
    assert not tree.send_signal(wrong, signal.SIGKILL)
    assert sleeper.poll() is None
    assert tree.send_signal(seen, signal.SIGKILL)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not tree.send_signal(seen, signal.SIGTERM), "a process that is gone is no error"
    assert tree.read_process(sleeper.pid) is None


def test_a_name_full_of_brackets_does_not_confuse_the_reading(tmp_path: Path) -> None:
    folder = tmp_path / "42"
    folder.mkdir()
    fields = ["S", "7", "42", "9", *["0"] * 15, "123456", "0"]
    (folder / "stat").write_text(f"42 (a) R 1 (b)) {' '.join(fields)}")
    assert tree.read_process(42, str(tmp_path)) == tree.Process(42, 123456, 7, 9, "S")


def test_the_token_finds_its_carriers_only(sleeper: subprocess.Popen[bytes]) -> None:
    assert tree.processes_with_token("t-4711") == {sleeper.pid}
    assert tree.processes_with_token("t-471") == set(), "a token is no prefix"


def test_children_of_all_threads_are_found() -> None:
    """Linux lists a child under the thread that forked it."""
    script = textwrap.dedent("""
        import subprocess, sys, threading, time
        def fork():
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print("forked", flush=True)
            time.sleep(60)
        threading.Thread(target=fork).start()
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    found = tree.descendant_pids(parent.pid)
    assert len(found) == 2
    assert found == sorted(tree.subtree_pids(parent.pid, tree.list_processes()))
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()


def test_a_fork_storm_does_not_outrun_the_killer() -> None:
    """A process that forks a successor in a new session and dies, as fast as it can."""
    storm = textwrap.dedent("""
        import os, time
        end = time.monotonic() + 20
        for _ in range(8):
            if os.fork() == 0:
                break
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
            time.sleep(0.002)
    """)
    script = textwrap.dedent(f"""
        import os, signal, subprocess, sys, time
        from workbench.processes import tree
        tree.become_subreaper()
        token = "storm-" + str(os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-c", {storm!r}], env={{**os.environ, tree.TOKEN_NAME: token}},
            start_new_session=True, stdout=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        ticks = tree.read_start_ticks(child.pid)
        root = tree.Process(child.pid, ticks, os.getpid(), child.pid, "S")
        killed, survivors = tree.Tree(root, token, os.getpid()).kill(10.0)
        print(len(killed) > 0, survivors, tree.processes_with_token(token))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.stdout == "True [] set()\n", done.stderr


def test_killing_gives_up_on_what_cannot_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    immortal = tree.Process(4_000_000, 1, 1, 1, "D")
    monkeypatch.setattr(tree, "send_signal", lambda *_: False)
    began = time.monotonic()
    assert tree.kill_all(lambda: [immortal], 0.2) == ([], [4_000_000])
    assert time.monotonic() - began < 2


def test_a_child_of_another_user_stops_no_killing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    foreign = tree.Process(4_000_000, 1, 1, 1, "S")
    monkeypatch.setattr(tree, "child_pids", lambda _: [foreign.pid])
    monkeypatch.setattr(tree, "read_process", lambda _: foreign)
    monkeypatch.setattr(tree.os, "kill", refuse)
    assert tree.kill_children(os.getpid(), ()) == (set(), 0)

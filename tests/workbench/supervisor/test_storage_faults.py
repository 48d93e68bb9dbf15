"""Faults of disks and files, by their numbers in docs/faults.md; and a crash at every operation."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines import messages
from engines.messages import Notice
from engines.protocol import RunSpec
from results.records import store
from tests.fixtures.wardens import Sandbox, entries
from workbench.planning import plan
from workbench.suites import journal, state, suite, warden_file
from workbench.supervisor import event_log


def test_a_read_only_log_root_is_refused_before_anything_starts(sandbox: Sandbox) -> None:
    """[40] A tmpfs mounted read-only: chmod would prove nothing, root writes anyway."""
    spot = sandbox.root / "readonly"
    spot.mkdir()
    words = "-e probe -d none -m none --set steps=1 --headless --log-root"
    script = (
        f"mount -t tmpfs -o ro none {spot} && {sys.executable} -m workbench run {words} {spot}/logs"
    )
    done = sandbox.in_namespace(script)
    assert done.returncode == 2, done.stderr
    assert f"{spot}/logs: suites cannot be written there (Read-only file system)" in done.stderr
    assert done.stderr.count("\n") == 1, "one sentence"


def test_on_a_full_disk_a_run_goes_on_if_that_was_asked(sandbox: Sandbox) -> None:
    """[37] The journal has a gap, which is said at once and counted; the run completes."""
    folder = sandbox.suite("fill-then-done", spec={"on_disk_full": "continue"})
    done = sandbox.on_small_disk(folder)
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [r.exit.cause for r in records] == ["completed"], done.stderr
    assert records[0].steps == 400, "all steps, whatever the journal holds"
    assert records[0].counters["journal_entries_lost"] > 0
    assert records[0].counters["notice:disk-full"] == 1
    read = entries(folder)
    assert any(isinstance(e.msg, Notice) and e.msg.code == "disk-full" for e in read)
    assert read[-1].msg.model_dump()["kind"] == "end"
    assert state.reduce_entries(read).gaps > 0, "the numbers show what is missing"


def test_an_error_at_close_cannot_come_because_nothing_is_buffered() -> None:
    """[39] /dev/full takes a buffered write and refuses at close; the journal hears it at once."""
    with contextlib.suppress(OSError), open("/dev/full", "w") as buffered:  # noqa: PTH123
        assert buffered.write("x") == 1
    with pytest.raises(journal.JournalLostError), journal.Journal.open(Path("/dev/full")) as opened:
        opened.write("warden", Notice(code="a", text="b"))


def _create(root: Path, queue: multiprocessing.Queue) -> None:
    asked = plan.SuitePlan(name="same", engines="fake", subsets="none", models="m")
    queue.put(suite.create_suite(root, asked, []).name)


def test_suites_made_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    """[48] 16 processes in the same second."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    makers = [context.Process(target=_create, args=(tmp_path, queue)) for _ in range(16)]
    for maker in makers:
        maker.start()
    names = {queue.get(timeout=180) for _ in makers}
    for maker in makers:
        maker.join()
    assert len(names) == 16


# Crash at the N-th operation (SQLite's method)

OPERATIONS = ("write", "fsync", "replace", "mkdir", "unlink", "ftruncate", "open")


def scenario(root: Path) -> None:
    """About forty effects on files: a suite, a journal of eight entries, a record, its summary."""
    from workbench.supervisor.run_records import write_record

    asked = plan.SuitePlan(name="crash", engines="fake", subsets="none", models="m")
    spec = RunSpec(
        suite="", run_id="01-run", engine="fake", subset="none", model="m", cache_root=str(root)
    )
    folder = suite.create_suite(root / "logs", asked, [spec])
    run = folder / "runs" / "01-run"
    warden = warden_file.WardenFile(
        pid=1, start_ticks=1, host="h", token="t", state="running", started_wall=0.0
    )
    warden_file.write_warden(folder, warden)
    kept = event_log.EventLog(run, folder / ".reserve")
    for number in range(8):
        kept.write(Notice(t=float(number), code="n", text=f"entry {number}"))
        acknowledge(root, f"entry {number}" if not kept.problem else "")
        kept.sync(force=number % 3 == 0)
    kept.write(messages.End(t=9.0, cause="stopped"))
    kept.close()
    write_record(
        folder.parent / "results.jsonl",
        run,
        spec.model_copy(update={"suite": folder.name}),
        kept.state,
    )
    acknowledge(root, "record")
    warden_file.write_warden(folder, warden.model_copy(update={"state": "ended"}))
    acknowledge(root, "ended")


def acknowledge(root: Path, what: str) -> None:
    """Note down outside what the writer was told is kept; never a part of what fails."""
    if what:
        descriptor = REAL["open"](root / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        REAL["write"](descriptor, f"{what}\n".encode())
        os.close(descriptor)


REAL = {name: getattr(os, name) for name in OPERATIONS}


def in_child(root: Path, effect: Callable[[int], OSError | None]) -> int:
    """The scenario in a forked child whose N-th operation has an effect; its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = [0]
    for name, real in REAL.items():

        def made(*args, real=real, **more):
            count[0] += 1
            if (error := effect(count[0])) is not None:
                raise error
            return real(*args, **more)

        setattr(os, name, made)
    try:
        scenario(root)
    except Exception:
        os._exit(7)  # a forked child must not go on with the tests of its parent
    os._exit(count[0] % 100 + 100 if count[0] >= 100 else count[0])


def audit(root: Path) -> None:
    """Everything that was acknowledged is there, everything there can be read."""
    said = (
        (root / "acknowledged").read_text().splitlines() if (root / "acknowledged").exists() else []
    )
    for folder in suite.list_suites(root / "logs") if (root / "logs").exists() else []:
        for path in folder.glob("runs/*/events.jsonl"):
            texts = [e.msg.text for e in journal.Tail(path).read_all() if isinstance(e.msg, Notice)]
            kept = [word for word in said if word.startswith("entry")]
            assert set(kept) <= set(texts), f"acknowledged {kept}, found {texts}"
            with journal.Journal.open(path) as again:  # and it can be gone on with
                again.write("warden", Notice(code="n", text="later"))
            assert journal.Tail(path).read_all()[-1].msg.model_dump()["text"] == "later"
        assert (folder / "warden.json").exists() <= (warden_file.read_warden(folder) is not None)
    results = root / "logs" / "results.jsonl"
    if "record" in said:
        assert [r.exit.cause for r in store.read_records(results)] == ["stopped"]


def kill(number: int) -> Callable[[int], OSError | None]:
    def effect(count: int) -> OSError | None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    return effect


@pytest.mark.parametrize("kind", ["crash", "fails once", "fails from there on"])
def test_a_crash_or_an_error_at_every_operation(tmp_path: Path, kind: str) -> None:
    """[43] SQLite's method: N = 1, 2, … until the scenario runs through."""
    effects = {
        "crash": kill,
        "fails once": lambda n: lambda count: OSError(5, "I/O error") if count == n else None,
        "fails from there on": lambda n: lambda c: OSError(28, "No space") if c >= n else None,
    }
    for number in range(1, 200):
        root = tmp_path / str(number)
        root.mkdir()
        code = in_child(root, effects[kind](number))
        audit(root)
        if code not in (-9, 7) and code < number:
            assert number > 25, "the scenario has that many operations at least"
            return
    raise AssertionError("the scenario never ran through")


def _append(path: Path, line: bytes, writer: int) -> None:
    os.fsync = lambda _: None  # the order of writes is the question here, not power cuts
    for number in range(2000):
        store.append_line(path, line.replace(b"@", f"{writer}-{number:04d}".encode()))


def test_eight_writers_of_two_thousand_records_lose_and_mix_nothing(tmp_path: Path) -> None:
    """[45] results.jsonl of one log root, written by eight wardens at once."""
    path = tmp_path / "results.jsonl"
    line = json.dumps({"id": "@", "filler": "한" * 700}, ensure_ascii=False).encode()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path, line, n)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 8
    # A writer that looks while another one writes takes the line for torn and seals it: an empty
    # line, which readers pass over.
    found = [json.loads(text)["id"] for text in path.read_bytes().splitlines() if text]
    assert len(found) == 16_000
    for writer in range(8):
        own = [f"{writer}-{number:04d}" for number in range(2000)]
        assert [x for x in found if x.startswith(f"{writer}-")] == own, "in its own order"

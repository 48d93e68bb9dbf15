"""The journal loses nothing it acknowledged, and its readers survive anything."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import messages, protocol
from workbench.suites.journal import Journal, JournalBusyError, JournalLostError, LineSplitter, Tail


def notice(number: int, text: str = "텍스트 ✓") -> messages.Notice:
    return messages.Notice(t=number, code="n", text=text)


def test_entries_come_back_in_order_and_numbered(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "events.jsonl") as journal:
        for number in range(5):
            journal.write("engine", notice(number))
    entries = Tail(tmp_path / "events.jsonl").read_all()
    assert [(e.seq, e.msg.t, e.src) for e in entries] == [(i, float(i), "engine") for i in range(5)]
    with Journal.open(tmp_path / "events.jsonl") as journal:
        assert journal.sequence == 5


def test_nan_and_unmeasured_stay_different(tmp_path: Path) -> None:
    step = messages.Step(step=1, count=1, samples=1, seconds=1.0, loss=math.nan, lr=math.inf)
    with Journal.open(tmp_path / "events.jsonl") as journal:
        journal.write("engine", step)
    line = (tmp_path / "events.jsonl").read_bytes()
    assert json.loads(line)["msg"]["loss"] == "NaN"
    back = Tail(tmp_path / "events.jsonl").read_all()[0].msg
    assert isinstance(back, messages.Step)
    assert math.isnan(back.loss)
    assert back.lr == math.inf
    assert back.data_wait is None


def test_an_unknown_kind_is_kept_raw(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "events.jsonl") as journal:
        journal.write("engine", protocol.decode(b'{"kind":"aura","colour":"blue"}'))
    entry = Tail(tmp_path / "events.jsonl").read_all()[0]
    assert entry.msg.model_dump()["colour"] == "blue"


def test_a_torn_tail_at_every_offset_never_eats_the_next_entry(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal.open(path) as journal:
        journal.write("engine", notice(0))
        first = journal.size
        journal.write("engine", notice(1))
    whole = path.read_bytes()
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal.open(path) as journal:
            assert journal.sealed == (0 if cut == first else 1)
            journal.write("engine", notice(2))
        tail = Tail(path)
        times = [entry.msg.t for entry in tail.read_all()]
        complete = cut == len(whole) - 1  # only the newline was missing
        assert times == ([0.0, 1.0, 2.0] if complete else [0.0, 2.0])
        assert tail.bad == (0 if complete or cut == first else 1)


def test_any_damaged_byte_costs_at_most_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal.open(path) as journal:
        for number in range(3):
            journal.write("engine", notice(number))
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        tail = Tail(path)
        kept = tail.read_all()
        assert len(kept) >= (1 if whole[position : position + 1] == b"\n" else 2)
        assert len(kept) + tail.bad + tail.oversize >= 2


def test_the_reader_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal.open(path) as journal:
        journal.write("engine", notice(0))
    whole = path.read_bytes()
    tail = Tail(path)
    path.write_bytes(whole[:20])
    assert tail.poll() == []
    with path.open("ab") as file:
        file.write(whole[20:])
    assert len(tail.poll()) == 1
    assert tail.bad == 0
    assert tail.poll() == []


def test_the_reader_reads_anew_when_the_file_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal.open(path) as journal:
        journal.write("engine", notice(0))
        journal.write("engine", notice(1))
    tail = Tail(path)
    assert len(tail.poll()) == 2
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    assert len(tail.poll()) == 1
    assert tail.restarts == 1


def test_a_missing_file_has_no_entries_yet(tmp_path: Path) -> None:
    assert Tail(tmp_path / "nothing").poll() == []


def test_garbage_is_counted_whatever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal.open(path) as journal:
        journal.write("engine", notice(0))
    traps = [b"[" * 50_000, b"{", b"null", b"9" * 5_000, b"\xff\xfe", b'{"seq":1}', b'"\\ud800"']
    with path.open("ab") as file:
        file.write(b"\n".join(traps) + b"\n" + b"x" * 200_000 + b"\n")
    with Journal.open(path) as journal:
        journal.write("engine", notice(1))
    tail = Tail(path)
    assert [entry.msg.t for entry in tail.read_all()] == [0.0, 1.0]
    assert (tail.bad, tail.oversize) == (len(traps), 1)


def test_a_stretch_of_bad_lines_longer_than_a_poll_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"bad\n" * 280_000)
    with Journal.open(path) as journal:
        journal.write("engine", notice(7))
    assert [entry.msg.t for entry in Tail(path).read_all()] == [7.0]


def test_a_second_writer_is_refused_and_the_lock_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal.open(path)
    with pytest.raises(JournalBusyError):
        Journal.open(path)
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    journal.close()
    Journal.open(path).close()
    sleeper.communicate(b"\n")


def test_a_lock_that_cannot_be_had_leaves_no_file_open(tmp_path: Path, monkeypatch) -> None:
    def refuse(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("workbench.suites.journal.fcntl.flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(JournalLostError, match="No locks available"):
        Journal.open(tmp_path / "events.jsonl")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_short_write_leaves_no_half_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel write 99 of 501 bytes without an error."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from engines import messages, protocol
        from workbench.suites.journal import Journal, JournalLostError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal.open(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            for number in range(100):
                journal.write("engine", messages.Notice(t=number, code="n", text="x" * 200))
        except JournalLostError:
            print(number)
    """)
    path = tmp_path / "events.jsonl"
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert path.read_bytes().endswith(b"\n")
    assert len(Tail(path).read_all()) == int(run.stdout) > 0


def test_a_full_disk_is_an_error_at_once() -> None:
    with pytest.raises(JournalLostError):
        with Journal.open(Path("/dev/full")) as journal:
            journal.write("engine", notice(0))


def test_a_deleted_journal_is_noticed_at_the_next_sync(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal.open(path) as journal:
        journal.write("engine", notice(0))
        journal.sync(force=True)
        path.unlink()
        journal.write("engine", notice(1))
        with pytest.raises(JournalLostError, match="deleted"):
            journal.sync(force=True)


def test_state_changes_are_synced_at_once_and_metrics_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Journal.open(tmp_path / "events.jsonl") as journal:
        journal.write("engine", notice(0))
        journal.sync()
        assert len(synced) == 0
        journal.write("engine", messages.Phase(name="train"))
        journal.sync()
        assert len(synced) == 1
        journal.sync(force=True)
        assert len(synced) == 1, "nothing new, nothing to do"


@given(
    lines=st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_splitting_does_not_depend_on_how_the_bytes_arrive(
    lines: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(line + b"\n" for line in lines)
    splitter, got, start = LineSplitter(40), [], 0
    for cut in sorted({min(c, len(data)) for c in cuts} | {len(data)}):
        got += splitter.feed(data[start:cut])
        start = cut
    assert got == [line for line in lines if len(line) <= 40]
    assert splitter.oversize == sum(len(line) > 40 for line in lines)
    assert splitter.torn == b""


def test_a_ten_megabyte_line_costs_no_memory_and_not_its_neighbours() -> None:
    splitter = LineSplitter(protocol.MAX_LINE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = splitter.feed(b"one\n")
    for _ in range(160):
        got += splitter.feed(b"x" * 65_536)
    got += splitter.feed(b"\ntwo\nthr")
    assert got == [b"one", b"two"]
    assert (splitter.oversize, splitter.torn) == (1, b"thr")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024

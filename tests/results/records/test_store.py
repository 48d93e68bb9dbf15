"""results.jsonl under torn tails, many writers, full disks and lines of every foreign kind."""

import errno
import gc
import json
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.records import migrations, notes, store

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bench_logs" / "results.jsonl"


def test_a_record_comes_back_as_it_was(path, mixed):
    for record in mixed.records:
        store.append_record(path, record)
    found = store.read_records(path)
    assert tuple(found) == mixed.records
    assert (found.bad_count, found.torn, found.trouble) == (0, False, "")


def test_not_a_number_is_not_unknown(path, make):
    store.append_record(path, make.record(train={"loss": float("nan"), "grad_norm": float("inf")}))
    assert b'"loss":"NaN"' in path.read_bytes()
    (found,) = store.read_records(path)
    assert found.train["loss"] != found.train["loss"]
    assert found.train["grad_norm"] == float("inf")
    assert found.timing.step_median.value is None
    assert found.timing.step_median.reason


def test_all_at_once_leaves_the_garbage_collector_as_it_was(path, mixed):
    for record in mixed.records:
        store.append_record(path, record)
    assert store.read_records(path).all() == list(mixed.records)
    assert gc.isenabled()
    path.write_text('{"schema": 7}\n')
    with pytest.raises(store.NewerSchemaError):
        store.read_records(path).all()
    assert gc.isenabled()


def test_a_file_that_is_not_there_holds_nothing(path):
    assert list(store.read_records(path)) == []


def test_only_the_owner_can_read(path, make):
    store.append_record(path, make.record())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_torn_tail_is_sealed_wherever_it_was_cut(path, make, monkeypatch):
    """Offsets all over the last record, in the middle of a Korean character too."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    first, second, third = (make.record(f"0{i}-run", folder="한국어") for i in (1, 2, 3))
    store.append_record(path, first)
    head = path.read_bytes()
    store.append_record(path, second)
    whole = path.read_bytes()
    tail = range(len(whole) - 150, len(whole))
    assert b"\xed\x95\x9c" in whole[tail.start :]
    for cut in [*range(len(head) + 1, tail.start, 11), *tail]:
        path.write_bytes(whole[:cut])
        torn = store.read_records(path)
        assert list(torn) == ([first, second] if cut == len(whole) - 1 else [first])
        store.append_record(path, third)
        found = store.read_records(path)
        kept = list(found)
        whole_line = cut == len(whole) - 1
        assert kept == ([first, second, third] if whole_line else [first, third])
        assert [line.number for line in found.bad] == ([] if whole_line else [2])
        assert not found.torn


def test_a_tail_that_lacks_only_its_newline_is_kept(path, make):
    store.append_record(path, make.record("01-run"))
    path.write_bytes(path.read_bytes()[:-1])
    store.append_record(path, make.record("02-run"))
    assert [r.identity.run_id for r in store.read_records(path)] == ["01-run", "02-run"]


def test_a_torn_last_line_is_named(path, make):
    store.append_record(path, make.record())
    with path.open("ab") as file:
        file.write(b'{"schema":1,"identity":{"sui')
    found = store.read_records(path)
    assert len(list(found)) == 1
    assert found.torn
    assert found.bad == [store.BadLine(2, "torn")]
    assert found.trouble == f"{path}: 1 line is unreadable and left out (line 2: torn)"


def _write(path, record, writer):
    for number in range(40):
        facts = {"filler": "x" * (writer * 1500)}
        changed = record.identity.model_copy(update={"run_id": f"{number:02d}-{writer}"})
        store.append_record(path, record.model_copy(update={"identity": changed, "facts": facts}))


def test_many_writers_never_mix_their_lines(path, make):
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_write, args=(path, make.record(), n), daemon=True) for n in range(6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 6
    found = store.read_records(path)
    names = [record.identity.run_id for record in found]
    assert sorted(names) == sorted(f"{i:02d}-{n}" for i in range(40) for n in range(6))
    assert (found.bad_count, found.torn) == (0, False)


def test_a_short_write_is_an_error_and_the_next_record_survives(path, make, monkeypatch):
    store.append_record(path, make.record("01-run"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    with pytest.raises(OSError, match="only 100 of .* bytes were written; free space") as caught:
        store.append_record(path, make.record("02-run"))
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    store.append_record(path, make.record("03-run"))
    found = store.read_records(path)
    assert [r.identity.run_id for r in found] == ["01-run", "03-run"]
    assert found.bad_count == 1


def test_a_record_is_synced_before_append_returns(path, make, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    store.append_record(path, make.record())
    store.append_record(path, make.record())
    assert synced == [path, path.parent, path]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_fsync_of_folders_loses_no_record(path, make, monkeypatch, error):
    fsync = os.fsync

    def of_files_only(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", of_files_only)
    if error == errno.EIO:  # that one means a disk
        with pytest.raises(OSError, match="Input/output"):
            store.append_record(path, make.record())
        return
    store.append_record(path, make.record())
    assert len(list(store.read_records(path))) == 1


def test_a_full_disk_is_an_error(tmp_path, make, monkeypatch):
    def write(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        store.append_record(tmp_path / "results.jsonl", make.record())


def test_a_fifo_is_refused_by_readers_and_writers_at_once(tmp_path, make):
    os.mkfifo(tmp_path / "results.jsonl")
    with pytest.raises(OSError, match="not a regular file"):
        store.read_records(tmp_path / "results.jsonl").all()
    with pytest.raises(OSError, match="not a regular file"):
        store.append_record(tmp_path / "results.jsonl", make.record())


def test_a_link_is_not_followed(tmp_path, make):
    (tmp_path / "elsewhere").write_text("precious\n")
    (tmp_path / "results.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="results.jsonl"):
        store.append_record(tmp_path / "results.jsonl", make.record())
    assert (tmp_path / "elsewhere").read_text() == "precious\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1, 2]", "not an object"),
        (b"null", "not an object"),
        (b"{}", "no schema number"),
        (b'{"schema": true}', "no schema number"),
        (b'{"schema": 0}', "no schema number"),
        (b'{"schema": "1"}', "no schema number"),
        (b'{"schema":1,"identity":5}', "identity: Input should be"),
        (b'{"schema":1}', "identity: Field required"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema":2,"a":' + b"[" * 100_000, "recursion limit exceeded"),
    ],
)
def test_a_foreign_line_is_counted_and_named(path, make, line, reason):
    store.append_record(path, make.record("01-run"))
    with path.open("ab") as file:
        file.write(line + b"\n\n")
    store.append_record(path, make.record("02-run"))
    found = store.read_records(path)
    assert [r.identity.run_id for r in found] == ["01-run", "02-run"]
    assert found.bad_count == 1
    assert found.bad[0].number == 2
    assert reason in found.bad[0].reason


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_can_be_read(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "results.jsonl"
    path.write_bytes(b"\n".join(junk))
    found = store.read_records(path)
    assert list(found) == []
    lines = path.read_bytes().split(b"\n")
    assert found.bad_count == sum(bool(line.strip()) for line in lines)


def test_a_newer_schema_is_refused_in_one_sentence(path, make):
    store.append_record(path, make.record())
    with path.open("ab") as file:
        file.write(b'{"schema": 7, "whatever": 1}\n')
    with pytest.raises(store.NewerSchemaError) as caught:
        list(store.read_records(path))
    assert str(caught.value) == (
        f"{path} line 2 was written by a newer workbench (schema 7, and this workbench reads up to "
        "2): update the workbench, or use another log root"
    )


def test_frozen_samples_of_every_version_are_still_read(make):
    """These files are never regenerated: they are what older versions wrote."""
    versions = sorted(SAMPLES.glob("results-v*.jsonl"))
    assert [p.name for p in versions] == ["results-v1.jsonl", "results-v2.jsonl"]
    completed, failed = store.read_records(versions[0])
    assert completed.identity.params["num_workers"] == 12, "an earlier name"
    of_version_2 = [record.model_dump_json() for record in store.read_records(versions[1])]
    assert of_version_2 == [completed.model_dump_json(), failed.model_dump_json()]
    assert completed.identity.run_id == "01-retrieval-oven_train-tinyclip-61m"
    assert completed.timing.end_to_end_seconds.value == 481.39
    assert completed.memory.vram_process_peak.reason == "no NVML library on this machine"
    assert completed.metrics[0].low == 0.388
    assert failed.exit.cause == "oom-cuda"
    assert failed.train["loss"] != failed.train["loss"]
    assert failed.model_extra == {"a_field_of_a_later_minor_version": [1]}


def test_upgrades_run_one_version_at_a_time():
    steps = {
        1: lambda line: {"b": line["a"] * 2},
        2: lambda line: {"c": line["b"] + 1},
    }
    assert migrations.migrate({"schema": 1, "a": 5}, steps, 3) == {"schema": 3, "c": 11}
    assert migrations.migrate({"schema": 3, "c": 1}, steps, 3) == {"schema": 3, "c": 1}
    with pytest.raises(migrations.NewerSchemaError):
        migrations.migrate({"schema": 4}, steps, 3)
    assert set(migrations.MIGRATIONS) == set(range(1, migrations.SCHEMA))


def test_notes_are_folded_in_order(tmp_path):
    path = tmp_path / "notes.jsonl"
    run = {"suite": "s", "run_id": "01-run"}
    for kind, text in (
        ("finding", "mode collapse; LR did not cure it"),
        ("finding", "기준선"),
        ("state", "waiting"),
        ("state", "done"),
        ("tag", "baseline"),
        ("tag", "old"),
        ("tag", "-old"),
        ("tombstone", "wrong data"),
        ("tombstone", ""),
    ):
        notes.append_note(path, notes.Note(**run, kind=kind, text=text))
    with path.open("ab") as file:
        file.write(b'{"schema":1,"suite":"s","kind":"opinion","text":""}\n')
    read = notes.read_notes(path)
    standing = notes.reduce_notes(read)[("s", "01-run")]
    assert standing.findings == ("mode collapse; LR did not cure it", "기준선")
    assert (standing.state, standing.tags, standing.trashed) == ("done", {"baseline"}, "")
    assert read.bad_count == 1


def test_newer_notes_are_refused(tmp_path):
    path = tmp_path / "notes.jsonl"
    line = {"schema": 2, "suite": "s", "kind": "tag", "text": "x"}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(store.NewerSchemaError, match="line 1 was written by a newer workbench"):
        list(notes.read_notes(path))


def _attempt(make, run_id, attempt, **more):
    return make.record(run_id, identity={"attempt": attempt}, **more)


def test_the_last_attempt_counts_whatever_the_order(make):
    first, second = _attempt(make, "01-run", 1), _attempt(make, "01-run", 2)
    other = _attempt(make, "02-run", 1)
    assert store.last_attempts([first, other, second]) == [second, other]
    assert store.last_attempts([second, other, first]) == [second, other]


def test_a_later_line_corrects_an_earlier_one(make):
    wrong, right = _attempt(make, "01-run", 1, steps=1), _attempt(make, "01-run", 1, steps=2)
    assert store.last_attempts([wrong, right]) == [right]


def test_equal_run_ids_of_two_suites_are_two_runs(make):
    here, there = make.record(), make.record(identity={"suite": "other"})
    assert store.last_attempts([here, there]) == [here, there]


def test_tables_and_records_load_nothing_heavy():
    """The workbench imports these itself; only statistics may bring numpy."""
    check = (
        "import sys; from results import report;"
        "from results.records import notes, store;"
        "from results.tables import metrics, run_cost, steps_and_memory;"
        "from results.text import table;"
        "print([m for m in ('numpy', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

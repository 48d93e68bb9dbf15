"""The cause of an end: exit status, messages, artifacts, OOM kills."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.messages import Artifact, Failed
from workbench.processes.engine_process import ExitStatus
from workbench.supervisor import exit_cause
from workbench.supervisor.exit_cause import ExitEvidence, decide_cause

DONE = ExitStatus(code=0)


KILLED = ExitStatus(signal=signal.SIGKILL)


STOP = Failed(error="Stopped as asked.", hint="stopped")


USAGE = Failed(error="x", hint="usage")


BITSANDBYTES = "Error out of memory at line 449 in file /src/csrc/pythonInterface.cpp"


ABORT = "terminate called after throwing\n  what():  CUDA error: out of memory\nSearch for it"


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (ExitEvidence(DONE, done=True), "completed"),
        (ExitEvidence(DONE, done=True, stop_cause="stopped"), "completed"),
        (ExitEvidence(DONE, done=True, artifact_problems=("gone",)), "failed"),
        (ExitEvidence(DONE, done=True, storage_error="full"), "storage-lost"),
        (ExitEvidence(DONE, done=True, protocol_error="99"), "protocol-error"),
        (ExitEvidence(DONE), "protocol-error"),
        (ExitEvidence(ExitStatus(code=3), done=True), "failed"),
        (ExitEvidence(ExitStatus(code=3)), "failed"),
        (ExitEvidence(ExitStatus(code=1), log_tail=BITSANDBYTES), "oom-cuda"),
        (
            ExitEvidence(ExitStatus(code=1), log_tail=f"{BITSANDBYTES}\nRuntimeWarning: x"),
            "oom-cuda",
        ),
        (ExitEvidence(ExitStatus(signal=signal.SIGABRT), log_tail=ABORT), "oom-cuda"),
        (
            ExitEvidence(ExitStatus(signal=signal.SIGABRT), log_tail="what(): std::bad_alloc"),
            "oom-host",
        ),
        (ExitEvidence(KILLED, log_tail=ABORT), "killed"),
        (ExitEvidence(DONE, done=True, log_tail=ABORT), "completed"),
        (ExitEvidence(ExitStatus(code=1), failed=USAGE, log_tail=ABORT), "failed"),
        (ExitEvidence(ExitStatus(), done=True), "unknown"),
        (ExitEvidence(KILLED), "killed"),
        (ExitEvidence(KILLED, oom_kills=1), "oom-host"),
        (ExitEvidence(KILLED, oom_kills=1, stop_cause="stopped"), "stopped"),
        (ExitEvidence(ExitStatus(signal=signal.SIGTERM), oom_kills=1), "killed"),
        (ExitEvidence(ExitStatus(signal=signal.SIGBUS)), "failed"),
        (ExitEvidence(ExitStatus(signal=40)), "killed"),
        (ExitEvidence(ExitStatus(code=143), failed=STOP, stop_cause="skipped"), "skipped"),
        (ExitEvidence(ExitStatus(code=143), failed=STOP), "stopped"),
        (ExitEvidence(KILLED, stop_cause="hung", stop_detail="no progress"), "hung"),
        (ExitEvidence(ExitStatus(code=1), failed=USAGE), "failed"),
    ],
)
def test_the_verdict(seen: ExitEvidence, cause: str) -> None:
    said, detail = decide_cause(seen)
    assert said == cause
    assert detail or cause in ("completed", "stopped", "skipped")


@given(
    code=st.none() | st.integers(0, 255),
    number=st.none() | st.integers(1, 64),
    done=st.booleans(),
    oom=st.integers(-1, 2),
    problem=st.sampled_from(["", "x"]),
)
def test_nothing_but_all_three_proofs_is_completed(
    code: int | None, number: int | None, done: bool, oom: int, problem: str
) -> None:
    seen = ExitEvidence(
        ExitStatus(code, number), done=done, oom_kills=oom,
        artifact_problems=(problem,) if problem else (),
    )  # fmt: skip
    assert (decide_cause(seen)[0] == "completed") == (code == 0 and done and not problem)


def safetensors(path: Path, header: bytes, data: bytes) -> Artifact:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return Artifact(path=path.name, sha256="0", size=path.stat().st_size)


def test_artifacts_are_verified_where_they_lie(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    whole = b'{"__metadata__":{"a":"b"},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    good = safetensors(run / "a.safetensors", whole, b"xy")
    assert exit_cause.find_artifact_problems([good], run) == ()
    wrong_first = good.model_copy(update={"size": 1})
    assert exit_cause.find_artifact_problems([wrong_first, good], run) == (), (
        "the last word on a path counts"
    )
    assert "bytes instead of 1" in exit_cause.find_artifact_problems([wrong_first], run)[0]
    short = safetensors(run / "b.safetensors", whole, b"x")
    assert "do not end" in exit_cause.find_artifact_problems([short], run)[0]
    broken = safetensors(run / "c.safetensors", b'{"w":7}', b"x")
    assert "cannot be read" in exit_cause.find_artifact_problems([broken], run)[0]
    (run / "d.safetensors").write_bytes(b"\xff" * 8)
    huge = Artifact(path="d.safetensors", sha256="0", size=8)
    assert "claims" in exit_cause.find_artifact_problems([huge], run)[0]


def test_an_artifact_on_a_failing_disk_is_a_problem_and_no_end_of_the_warden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file = safetensors(tmp_path / "a.safetensors", b"{}", b"")
    monkeypatch.setattr(Path, "open", fail)
    (problem,) = exit_cause.find_artifact_problems([file], tmp_path)
    assert problem == "artifact a.safetensors cannot be read: Input/output error"


@pytest.mark.parametrize(
    "path", ["../out", "/etc/passwd", "link", "fifo", "none", "a\0b", "x" * 300]
)
def test_an_artifact_cannot_lead_anywhere_else(tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "out").write_bytes(b"1")
    (run / "link").symlink_to("/etc/hostname")
    os.mkfifo(run / "fifo")
    assert (
        len(exit_cause.find_artifact_problems([Artifact(path=path, sha256="0", size=1)], run)) == 1
    )


def test_oom_kills_are_read_from_machine_and_cgroups(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    (proc / "self/cgroup").write_text("4:memory:/job\n2:cpu:/x\n0::/user/me\n")
    (groups / "user/me").mkdir(parents=True)
    (groups / "user/me/memory.events").write_text("oom 9\noom_kill 20\noom_group_kill 0\n")
    (groups / "memory/job").mkdir(parents=True)
    (groups / "memory/job/memory.oom_control").write_text("under_oom 0\noom_kill 100\n")
    assert exit_cause.count_oom_kills(proc, groups) == 123
    assert exit_cause.count_oom_kills(tmp_path / "none", tmp_path / "none") == 0

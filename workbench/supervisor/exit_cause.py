"""Exit cause of an attempt, decided from the evidence by a pure function.

A run is `completed` only if three things agree: its process exited with 0, it sent Done, and every
file that it announced exists with the announced size. Each alone can be wrong: a status reaped by
somebody else reads as 0, a crash may follow Done, and a full disk shortens a checkpoint.
"""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines import out_of_memory
from engines.messages import Artifact, Cause, Failed
from workbench.processes.engine_process import ExitStatus

HEADER_BYTES: Final = 100 * 1024 * 1024
"""Longest header of a safetensors file; the library refuses longer ones too."""

CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
"""Signals that a process causes itself; any other came from outside."""


@dataclass(frozen=True, slots=True)
class ExitEvidence:
    """What is known about an attempt after its last process has ended."""

    status: ExitStatus
    done: bool = False
    failed: Failed | None = None
    stop_cause: Cause | None = None
    """Cause of a requested shutdown: `stopped`, `skipped` or `pruned` by command, `hung` by
    the warden."""
    stop_detail: str = ""
    protocol_error: str = ""
    storage_error: str = ""
    artifact_problems: tuple[str, ...] = ()
    log_tail: str = ""
    """End of this attempt's part of engine.log; used if it sent neither Done nor Failed."""
    oom_kills: int = 0
    """Increase of the kernel's OOM-kill counters during the attempt."""


def decide_cause(evidence: ExitEvidence) -> tuple[Cause, str]:
    """The cause and one sentence of explanation. First match wins."""
    if evidence.storage_error:
        return "storage-lost", evidence.storage_error
    if evidence.protocol_error:
        return "protocol-error", evidence.protocol_error
    if evidence.status.code == 0 and evidence.done:
        if evidence.artifact_problems:
            return "failed", evidence.artifact_problems[0]
        return "completed", ""
    if evidence.stop_cause:
        return evidence.stop_cause, evidence.stop_detail
    if evidence.status.signal == signal.SIGKILL and evidence.oom_kills > 0:
        return "oom-host", "the kernel killed a process for memory while this run was at work"
    if evidence.failed is not None:
        hint = " (the kernel killed a process for memory meanwhile)" if evidence.oom_kills else ""
        return _cause_of_failure(evidence.failed), evidence.failed.error + hint
    oom_cause = out_of_memory.classify_text(evidence.log_tail) if _ended_itself(evidence) else ""
    if oom_cause:
        memory = "the GPU" if oom_cause == "oom-cuda" else "the host"
        return oom_cause, f"a library ended the engine: {memory} ran out of memory; see engine.log"
    if evidence.status.signal is not None:
        return _cause_of_signal(evidence.status.signal)
    return _cause_of_exit_code(evidence)


def _ended_itself(evidence: ExitEvidence) -> bool:
    """Whether the engine ended by itself with an error: abort, or an exit code without Done."""
    return evidence.status.signal in CRASHES or bool(evidence.status.code and not evidence.done)


def _cause_of_failure(failed: Failed) -> Cause:
    match failed.hint:
        case "oom-cuda" | "oom-host" | "stopped":
            return failed.hint
        case _:
            return "failed"


def _cause_of_signal(number: int) -> tuple[Cause, str]:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in CRASHES:
        return "failed", f"the engine crashed ({name}); engine.log has the stack"
    return "killed", f"something other than the warden killed the engine ({name})"


def _cause_of_exit_code(evidence: ExitEvidence) -> tuple[Cause, str]:
    code = evidence.status.code
    if code is None:
        return "unknown", "the exit status was lost"
    if code == 0:
        return "protocol-error", "the engine exited with 0 but never said that it was done"
    if evidence.done:
        return "failed", f"the engine said that it was done and then exited with {code}"
    return "failed", f"the engine exited with {code} and did not say why; see engine.log"


def find_artifact_problems(artifacts: Iterable[Artifact], run_dir: Path) -> tuple[str, ...]:
    """Problems of the announced files of a run; the last announcement of a path counts."""
    last = {artifact.path: artifact for artifact in artifacts}
    problems = (_artifact_problem(artifact, run_dir) for artifact in last.values())
    return tuple(problem for problem in problems if problem)


def _artifact_problem(artifact: Artifact, run_dir: Path) -> str:
    path = run_dir / artifact.path
    try:
        if not path.resolve().is_relative_to(run_dir.resolve()):
            return f"artifact {artifact.path} lies outside the run folder"
        status = path.lstat()
    except (OSError, ValueError):
        return f"artifact {artifact.path} is missing"
    if not stat.S_ISREG(status.st_mode):
        return f"artifact {artifact.path} is no regular file"
    if status.st_size != artifact.size:
        return f"artifact {artifact.path} has {status.st_size} bytes instead of {artifact.size}"
    try:
        problem = _header_problem(path, status.st_size) if path.suffix == ".safetensors" else ""
    except OSError as error:  # a failing disk, a file server that is gone
        return f"artifact {artifact.path} cannot be read: {error.strerror}"
    return f"artifact {artifact.path} is no whole safetensors file: {problem}" if problem else ""


def _header_problem(path: Path, size: int) -> str:
    """Length, JSON and offsets of the header; the tensors themselves are not read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES, size - 8):
            return f"its header claims {length} bytes"
        try:
            header = json.loads(file.read(length))
            spans = sorted(
                (int(tensor["data_offsets"][0]), int(tensor["data_offsets"][1]))
                for name, tensor in header.items()
                if name != "__metadata__"
            )
        except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
            return "its header cannot be read"
    end = 0
    for first, last in spans:
        if first != end or last < first:
            return "its tensors overlap or leave holes"
        end = last
    if end != size - 8 - length:
        return "its tensors do not end where the file ends"
    return ""


def count_oom_kills(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Sum of the kernel's OOM-kill counters; only differences are meaningful.

    The machine's counter, and those of our own cgroup in version 2 and version 1. Inside a
    container the machine's counter may include a neighbour's processes.
    """
    files = [(proc / "vmstat", "oom_kill")]
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, cgroup = line.split(":", 2)
        inside = cgroup.lstrip("/")
        if not controllers:
            files.append((cgroups / inside / "memory.events", "oom_kill"))
        elif "memory" in controllers.split(","):
            files.append((cgroups / "memory" / inside / "memory.oom_control", "oom_kill"))
    return sum(_read_counter(path, name) for path, name in files)


def _read_counter(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0

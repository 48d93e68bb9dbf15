"""How an attempt ended: from what was seen to one cause and one sentence. The judge is pure.

A run is `completed` only if three things agree: its process exited with 0, it said Done, and every
file that it promised is there as promised. Each of them alone has been seen to lie: a stolen exit
status reads as 0, a Done may be followed by a crash, and a full disk shortens a checkpoint.
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
from engines.protocol import Artifact, Cause, Failed
from workbench.processes.engine_process import Status

HEADER_BYTES: Final = 100 * 1024 * 1024
"""safetensors refuses a longer header, and so do we."""

CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
"""Signals that a process earns by itself; any other came from outside."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about an attempt when nothing of it runs any more."""

    status: Status
    done: bool = False
    failed: Failed | None = None
    asked: Cause | None = None
    """`stopped` or `skipped`, if somebody asked the warden for it; `hung`, if the warden did."""
    asked_detail: str = ""
    protocol_error: str = ""
    storage_error: str = ""
    artifact_problems: tuple[str, ...] = ()
    last_words: str = ""
    """The end of what this attempt wrote to engine.log: read where it sent no last message."""
    oom_kills: int = 0
    """How far the kernel's counters of killed processes moved during the attempt."""


def judge(seen: Evidence) -> tuple[Cause, str]:
    """The cause, and one sentence for a person. First match wins."""
    if seen.storage_error:
        return "storage-lost", seen.storage_error
    if seen.protocol_error:
        return "protocol-error", seen.protocol_error
    if seen.status.code == 0 and seen.done:
        if seen.artifact_problems:
            return "failed", seen.artifact_problems[0]
        return "completed", ""
    if seen.asked:
        return seen.asked, seen.asked_detail
    if seen.status.signal == signal.SIGKILL and seen.oom_kills > 0:
        return "oom-host", "the kernel killed a process for memory while this run was at work"
    if seen.failed is not None:
        hint = " (the kernel killed a process for memory meanwhile)" if seen.oom_kills else ""
        return _of_failure(seen.failed), seen.failed.error + hint
    spoken = out_of_memory.kind_of_text(seen.last_words) if _broke_off(seen) else ""
    if spoken:
        memory = "the GPU" if spoken == "oom-cuda" else "the host"
        return spoken, f"a library ended the engine: {memory} ran out of memory; see engine.log"
    if seen.status.signal is not None:
        return _of_signal(seen.status.signal)
    return _of_silence(seen)


def _broke_off(seen: Evidence) -> bool:
    """Whether the engine ended itself without a word: abort, or a library's exit with an error."""
    return seen.status.signal in CRASHES or bool(seen.status.code and not seen.done)


def _of_failure(failed: Failed) -> Cause:
    match failed.hint:
        case "oom-cuda" | "oom-host" | "stopped":
            return failed.hint
        case _:
            return "failed"


def _of_signal(number: int) -> tuple[Cause, str]:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in CRASHES:
        return "failed", f"the engine crashed ({name}); engine.log has the stack"
    return "killed", f"something other than the warden killed the engine ({name})"


def _of_silence(seen: Evidence) -> tuple[Cause, str]:
    code = seen.status.code
    if code is None:
        return "unknown", "the exit status was lost"
    if code == 0:
        return "protocol-error", "the engine exited with 0 but never said that it was done"
    if seen.done:
        return "failed", f"the engine said that it was done and then exited with {code}"
    return "failed", f"the engine exited with {code} and did not say why; see engine.log"


def problems(artifacts: Iterable[Artifact], run_dir: Path) -> tuple[str, ...]:
    """What is wrong with the files that a run promised, the last word on each path counting."""
    last = {artifact.path: artifact for artifact in artifacts}
    found = (_problem(artifact, run_dir) for artifact in last.values())
    return tuple(problem for problem in found if problem)


def _problem(artifact: Artifact, run_dir: Path) -> str:
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
    if path.suffix == ".safetensors" and (problem := _header_problem(path, status.st_size)):
        return f"artifact {artifact.path} is no whole safetensors file: {problem}"
    return ""


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


def oom_kills(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Sum of the kernel's counters of processes killed for memory; only differences mean anything.

    The machine's counter, and those of our own cgroup in version 2 and version 1. Inside a
    container, the machine's may count a neighbour's: that is why the cause says "likely" in docs.
    """
    files = [(proc / "vmstat", "oom_kill")]
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        inside = place.lstrip("/")
        if not controllers:
            files.append((cgroups / inside / "memory.events", "oom_kill"))
        elif "memory" in controllers.split(","):
            files.append((cgroups / "memory" / inside / "memory.oom_control", "oom_kill"))
    return sum(_counter(path, name) for path, name in files)


def _counter(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0

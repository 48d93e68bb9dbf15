"""The engine's process: pipes, environment, log and exit status.

The engine gets its own session (a Ctrl-C of the terminal does not reach it), an event pipe apart
from stdout (which libraries print to), and the read end of a life pipe, which the kernel closes
when the warden dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engines.protocol import RunSpec
from results.records.schema import GpuInfo
from workbench import paths
from workbench.processes import gpu_selection, tree

ENGINE_COMMAND: Final = (sys.executable, "-m", "engines.child")

ALLOCATOR: Final = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
ALLOWED: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|VIRTUAL_ENV|CONDA_PREFIX"
    r"|LD_LIBRARY_PATH|CUDA_.*|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES|NCCL_.*"
    r"|TORCH_.*|PYTORCH_.*|TRITON_.*|OMP_.*|MKL_.*|OPENBLAS_.*|GOMP_.*|KMP_.*|MALLOC_.*"
    r"|ATEN_CPU_CAPABILITY|(ONEDNN|DNNL)_.*"
    r"|HF_HOME|HF_HUB_CACHE|HF_HUB_OFFLINE|HF_DATASETS_CACHE|TRANSFORMERS_CACHE"
    r"|TRANSFORMERS_OFFLINE|TOKENIZERS_PARALLELISM|HUGGINGFACE_HUB_CACHE"
    r"|PYTHON.*|WORKBENCH_.*|XDG_.*|SSL_CERT_FILE|SSL_CERT_DIR|NVML_STUB_STATE"
    r"|SLURM_JOB_ID|SLURM_ARRAY_JOB_ID|SLURM_ARRAY_TASK_ID|SLURM_CPUS_PER_TASK|SLURM_TMPDIR"
    r"|SLURM_CONF"
)
"""Variables that an engine inherits: an allow-list, since secrets have no common name."""

SECRET: Final = re.compile(
    r"(^|_)(TOKENS?|SECRETS?|PASSWORD|PASSWD|CREDENTIALS?|API_?KEYS?)(_|$)", re.IGNORECASE
)
"""Never inherited, even if the list above has it."""

ATTEMPT_MARK: Final = "==== attempt "
"""Begin of the line in engine.log before the output of a second or later attempt."""

OOM_SCORE: Final = 500
"""oom_score_adj: the kernel's OOM killer takes the engine before the warden."""


class EngineStartError(RuntimeError):
    """The engine's process could not be made."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. Both None: the status was reaped by somebody else."""

    code: int | None = None
    signal: int | None = None


@dataclass
class EngineProcess:
    """A started engine. `close` closes the descriptors and stops nothing."""

    process: tree.Process
    pidfd: int
    event_fd: int
    t0: float
    """CLOCK_MONOTONIC at its start; all times of the attempt count from here."""
    popen: subprocess.Popen[bytes] = field(repr=False)
    status: ExitStatus | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.t0

    def poll(self) -> ExitStatus | None:
        """Its status if it has ended; reaps only this process."""
        if self.status is not None:
            return self.status
        try:
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            self.status = ExitStatus()
        else:
            if ended is None:
                return None
            exited = ended.si_code == os.CLD_EXITED
            self.status = ExitStatus(
                code=ended.si_status if exited else None,
                signal=None if exited else ended.si_status,
            )
        self.popen.returncode = -(self.status.signal or 0) or self.status.code or 0
        return self.status

    def close(self) -> None:
        """Close the pidfd and the event pipe."""
        for descriptor in (self.pidfd, self.event_fd):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.pidfd = self.event_fd = -1


def start_engine(
    command: Sequence[str],
    run_dir: Path,
    environment: Mapping[str, str],
    life_fd: int,
    pipe_bytes: int,
    cores: Set[int] = frozenset(),
) -> EngineProcess:
    """Start `command RUN_DIR` with `engine_environment` and its two pipes.

    `cores`: those that it may use; empty: all of this process.

    Raises:
        EngineStartError: no such program, no memory, too many processes or descriptors.
    """
    try:
        log = open_log(run_dir)
    except OSError as error:
        raise EngineStartError(f"{run_dir}/engine.log: {error.strerror}") from error
    try:
        reading, writing = os.pipe()
    except OSError as error:
        os.close(log)
        raise EngineStartError(f"its pipe cannot be made: {error.strerror}") from error
    with contextlib.suppress(OSError):  # a user's pipes may be limited; 64 KiB then
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, pipe_bytes)
    os.set_blocking(reading, False)
    t0 = time.monotonic()
    pipes = {"WORKBENCH_EVENT_FD": writing, "WORKBENCH_LIFE_FD": life_fd}
    added = {name: str(fd) for name, fd in pipes.items()}
    added |= {"WORKBENCH_T0": repr(t0), "WORKBENCH_PARENT": str(os.getpid())}
    try:
        with _use_cores(cores):
            popen = subprocess.Popen(
                [*command, str(run_dir)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=tuple(pipes.values()), start_new_session=True,
                env={**environment, **added},
            )  # fmt: skip
    except OSError as error:
        os.close(reading)
        raise EngineStartError(f"{command[0]} cannot be started: {error.strerror}") from error
    finally:
        os.close(writing)
        os.close(log)
    return _watch_engine(popen, reading, t0)


def _watch_engine(popen: subprocess.Popen[bytes], reading: int, t0: float) -> EngineProcess:
    """The engine that was just started; one that cannot be watched is killed.

    Raises:
        EngineStartError: no descriptor is left.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{popen.pid}/oom_score_adj").write_text(str(OOM_SCORE))
    # Not reaped yet, so the pid cannot have been reused.
    process = tree.read_process(popen.pid) or tree.Process(
        popen.pid, 0, os.getpid(), popen.pid, "Z"
    )
    try:
        pidfd = os.pidfd_open(popen.pid)
    except OSError as error:
        popen.kill()
        popen.wait()
        os.close(reading)
        raise EngineStartError(f"its process cannot be watched: {error.strerror}") from error
    return EngineProcess(process, pidfd, reading, t0, popen)


@contextlib.contextmanager
def _use_cores(cores: Set[int]) -> Iterator[None]:
    """Restrict this process, of one thread, to some cores while it starts a child.

    The child inherits them from its first instruction, so thread counts of its libraries fit.
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
        yield
    finally:
        os.sched_setaffinity(0, before)


def open_log(run_dir: Path) -> int:
    """A descriptor of the run's engine.log, for appending."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(run_dir / "engine.log", flags, 0o600)


def engine_environment(
    inherited: Mapping[str, str],
    spec: RunSpec,
    token: str,
    attempt: int,
    smaller: Mapping[str, Any] | None = None,
    gpus: Sequence[GpuInfo] = (),
) -> dict[str, str]:
    """The environment of an engine: allowed variables, module path, token, attempt, devices.

    `smaller`: settings that replace those of the spec after an OOM. `gpus`: the sampler's list.
    """
    passed = {
        name: value
        for name, value in inherited.items()
        if ALLOWED.fullmatch(name) and not SECRET.search(name)
    }
    passed |= paths.module_path(inherited)
    passed |= {
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        tree.TOKEN_NAME: token,
        "WORKBENCH_ATTEMPT": str(attempt),
        "WORKBENCH_PARAMS": json.dumps(dict(smaller or {})),
    }
    return passed | _allocator(passed) | _visible_devices(spec, passed, gpus)


def _allocator(variables: Mapping[str, str]) -> dict[str, str]:
    """Expandable segments of torch's allocator, against fragmentation by varying batch sizes.

    Under torch's present name and that of before 2.9, which 2.15 reads first. A setting of the
    user, under any name, wins.
    """
    if any(name in variables for name in (*ALLOCATOR, "PYTORCH_HIP_ALLOC_CONF")):
        return {}
    return dict.fromkeys(ALLOCATOR, "expandable_segments:True")


def _visible_devices(
    spec: RunSpec, variables: Mapping[str, str], gpus: Sequence[GpuInfo]
) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES and the order; indexes set in the shell keep the shell's order."""
    if spec.cpu:
        return {gpu_selection.VISIBLE: ""}
    if spec.devices:
        chosen = gpu_selection.visible_value(spec.devices, variables, gpus)
        return {gpu_selection.VISIBLE: chosen, gpu_selection.ORDER: gpu_selection.BY_BUS}
    if gpu_selection.VISIBLE in variables or gpu_selection.ORDER in variables:
        return {}
    return {gpu_selection.ORDER: gpu_selection.BY_BUS}


def mark_attempt(run_dir: Path, number: int) -> None:
    """Write a line into engine.log that parts an attempt from those before it."""
    with contextlib.suppress(OSError):  # `start_engine` reports it
        descriptor = open_log(run_dir)
        try:
            moment = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(descriptor, f"{ATTEMPT_MARK}{number}, {moment} ====\n".encode())
        finally:
            os.close(descriptor)


def trim_log(run_dir: Path, limit: int, keep: int = 1 << 20) -> int:
    """Cut the middle out of an engine.log that is over `limit`; returns the bytes cut.

    The writers append, so they continue after the cut. What they write between read and truncate
    is lost with the middle. Where the disk fails it stays as it is, or loses its end.
    """
    path = run_dir / "engine.log"
    try:
        size = path.stat().st_size
        if size <= limit:
            return 0
        descriptor = open_log(run_dir)
    except OSError:
        return 0
    try:
        end = os.pread(descriptor, keep, size - keep)
        cut = size - 2 * keep
        os.ftruncate(descriptor, keep)
        os.write(descriptor, f"\n[... {cut} bytes cut out here ...]\n".encode() + end)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return cut


def log_size(run_dir: Path) -> int:
    """Bytes of the run's engine.log; 0 if there is none."""
    try:
        return (run_dir / "engine.log").stat().st_size
    except OSError:
        return 0


def tail_log(path: Path, size: int = 4096) -> str:
    """The last lines of a log as text; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size).decode("utf-8", "replace").strip()
    except OSError:
        return ""

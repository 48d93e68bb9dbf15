"""torchrun agent: starts the ranks of a run, waits for them, and finds the first failure.

The engine's process itself becomes torchrun's elastic agent: one node, no restarts.
torchrun closes all descriptors of its workers but 0 to 2, so ranks open the event pipe and the life
pipe again through /proc/<agent>/fd. Only rank 0 sends messages; every rank writes its failure to a
file, and the agent sends the first cause.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.api import LogsDest, LogsSpecs
from torch.distributed.elastic.rendezvous.api import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from engines.emitter import Emitter
from engines.protocol import Failed
from engines.torchkit.runtime.distributed import TIMEOUT

LOOPBACK: Final = "127.0.0.1"
POLL_SECONDS: Final = 0.1

PEER_LOST: Final = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistNetworkError",
    "DistBackendError", "remote process exited", "Timed out waiting", "recvValue failed",
)  # fmt: skip
"""Error texts of a rank that only lost its connection to another one."""


def run_ranks(size: int, run_dir: Path, emit: Emitter) -> Failed | None:
    """Run `size` ranks of the engine of `run_dir`; None if all of them ended well.

    Raises:
        Stopped: asked to stop before a rank was started.
    """
    folder = run_dir / "ranks"
    folder.mkdir(exist_ok=True, mode=0o700)
    for old in folder.glob("*.json"):
        old.unlink()
    export_rank_environment(size)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGUSR1, _forward_signal)
    emit.check_stop()
    spec = WorkerSpec(
        role="rank",
        local_world_size=size,
        rdzv_handler=LoopbackRendezvous(f"{os.getpid()}"),
        entrypoint=sys.executable,
        args=("-m", "engines.child", str(run_dir)),
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
    )
    # 30 s after SIGTERM torchrun kills a rank that is left; the warden's own ladder is shorter.
    agent = LocalElasticAgent(spec, RankLogs(str(folder)))
    try:
        ended = agent.run()
    except SignalException:
        return failure_after_stop(folder, size)
    return find_first_cause(folder, ended) if ended.is_failed() else None


def export_rank_environment(size: int) -> None:
    """Set the environment of the ranks: parent, number of ranks, and paths to both pipes."""
    pid = os.getpid()
    for name in ("WORKBENCH_EVENT_FD", "WORKBENCH_LIFE_FD"):
        number = os.environ.get(name, "")
        if number.isdigit():
            os.environ[name] = f"/proc/{pid}/fd/{number}"
    os.environ["WORKBENCH_PARENT"] = str(pid)
    os.environ["WORKBENCH_RANKS"] = str(size)


class LoopbackRendezvous(RendezvousHandler):
    """Rendezvous of one node with a TCP store on the loopback interface.

    torchrun's own listens on all interfaces and trusts every client.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        listening = socket.create_server((LOOPBACK, 0))
        self._port: int = listening.getsockname()[1]
        self._store = TCPStore(
            LOOPBACK,
            self._port,
            is_master=True,
            wait_for_workers=False,
            timeout=TIMEOUT,
            master_listen_fd=listening.detach(),
        )

    def get_backend(self) -> str:
        """Name of the rendezvous backend."""
        return "loopback"

    @property
    def use_agent_store(self) -> bool:
        """Ranks are clients of this store."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Returns at once: there is no other node."""
        address = RendezvousStoreInfo(LOOPBACK, self._port)
        return RendezvousInfo(PrefixStore("agent", self._store), 0, 1, address)

    def is_closed(self) -> bool:
        """Never."""
        return False

    def set_closed(self) -> None:
        """No other node to notify."""

    def num_nodes_waiting(self) -> int:
        """No other node."""
        return 0

    def get_run_id(self) -> str:
        """Id of the rendezvous."""
        return self._run_id

    def shutdown(self) -> bool:
        """The store ends with this process."""
        return True


class RankLogs(LogsSpecs):
    """Log files of the ranks: engine.log for rank 0, `ranks/rankN.log` for the others."""

    @property
    def root_log_dir(self) -> str:
        """The run's folder `ranks`."""
        return str(self._root_log_dir)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """No redirection by torchrun: ranks redirect their output themselves, so as to append."""
        nothing = dict.fromkeys(envs, "")
        unused = {rank: f"{self._root_log_dir}/torchrun-{rank}.json" for rank in envs}
        return LogsDest(nothing, nothing, nothing, nothing, unused)


def log_path(rank: int) -> str:
    """File with the stderr of a rank, relative to the run folder."""
    return f"ranks/rank{rank}.log" if rank else "engine.log"


def failure_after_stop(folder: Path, size: int) -> Failed:
    """`Failed` message after a SIGTERM: the first rank that failed otherwise, else `stopped`."""
    failures = {rank: _read_failure(folder, rank) for rank in range(size)}
    errors = {rank: f for rank, f in failures.items() if f is not None and f.hint != "stopped"}
    if errors:
        rank, failure = min(errors.items(), key=lambda item: item[1].t)
        return _with_rank(rank, failure)
    return Failed(error="Stopped as asked.", hint="stopped")


def find_first_cause(folder: Path, ended: RunResult) -> Failed:
    """First cause of a failed run: a rank's own error, else a signal, else a lost peer."""
    signals: dict[int, int] = {}
    errors: dict[int, Failed] = {}
    lost: dict[int, Failed] = {}
    silent: dict[int, int] = {}
    for rank, exit_status in ended.failures.items():
        failure = _read_failure(folder, rank)
        if failure is None:
            signal_number = -exit_status.exitcode
            if signal_number > 0:
                signals[rank] = signal_number
            else:
                silent[rank] = exit_status.exitcode
        elif any(sign in failure.error + failure.traceback for sign in PEER_LOST):
            lost[rank] = failure
        elif failure.hint != "stopped" or len(ended.failures) == 1:
            errors[rank] = failure
    if errors:
        rank, first = min(errors.items(), key=lambda item: item[1].t)
        return _with_rank(rank, first)
    for rank, number in signals.items():
        if number != signal.SIGTERM:
            name = signal.Signals(number).name
            return Failed(error=f"rank {rank} was ended by {name}; see {log_path(rank)}")
    for rank, code in silent.items():
        return Failed(
            error=f"rank {rank} exited with {code} and did not say why; see {log_path(rank)}"
        )
    if lost:
        rank, first = min(lost.items(), key=lambda item: item[1].t)
        return _with_rank(rank, first)
    return Failed(error="Stopped as asked.", hint="stopped")


def _with_rank(rank: int, failure: Failed) -> Failed:
    """A rank's failure as that of the run; names the rank unless it is a usage error."""
    if failure.hint == "usage":
        return failure.model_copy(update={"t": 0.0})
    text = f"rank {rank}: {failure.error} (see {log_path(rank)})"
    return failure.model_copy(update={"t": 0.0, "error": text})


def _read_failure(folder: Path, rank: int) -> Failed | None:
    try:
        return Failed.model_validate_json((folder / f"rank{rank}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _interrupt(number: int, _frame: Any) -> None:
    """torchrun's handler of SIGTERM, installed before its agent runs."""
    raise SignalException("stopped", signal.Signals(number))


def _forward_signal(number: int, _frame: Any) -> None:
    """Forward SIGUSR1 (a request of the warden for stacks) to every rank."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), number)

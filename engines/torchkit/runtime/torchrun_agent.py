"""The torchrun agent: starts the ranks of a run, waits for them, and finds who failed first.

The engine's process becomes the agent, without a shell command between: torchrun's own elastic
agent, one node, no restarts. torchrun closes all descriptors of its workers but 0 to 2, so ranks
open the event pipe and the life pipe again through /proc/<agent>/fd. Only rank 0 speaks; every
rank writes why it failed to a file, and the agent says the first cause as the run's last word.
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
"""What the failure of a rank says that only lost another one."""


def supervise(size: int, run_dir: Path, emit: Emitter) -> Failed | None:
    """Run `size` ranks of the engine of `run_dir`; None if all of them ended well.

    Raises:
        Stopped: asked to stop before a rank was started.
    """
    folder = run_dir / "ranks"
    folder.mkdir(exist_ok=True, mode=0o700)
    for old in folder.glob("*.json"):
        old.unlink()
    hand_down(size)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGUSR1, _pass_on)
    emit.check_stop()
    spec = WorkerSpec(
        role="rank",
        local_world_size=size,
        rdzv_handler=Loopback(f"{os.getpid()}"),
        entrypoint=sys.executable,
        args=("-m", "engines.child", str(run_dir)),
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
    )
    # 30 s after SIGTERM torchrun kills a rank that is left; the warden's own ladder is shorter.
    agent = LocalElasticAgent(spec, Logs(str(folder)))
    try:
        ended = agent.run()
    except SignalException:
        return stopped(folder, size)
    return first_cause(folder, ended) if ended.is_failed() else None


def hand_down(size: int) -> None:
    """Put into the environment what a rank needs: its parent, and paths to our two pipes."""
    own = os.getpid()
    for name in ("WORKBENCH_EVENT_FD", "WORKBENCH_LIFE_FD"):
        number = os.environ.get(name, "")
        if number.isdigit():
            os.environ[name] = f"/proc/{own}/fd/{number}"
    os.environ["WORKBENCH_PARENT"] = str(own)
    os.environ["WORKBENCH_RANKS"] = str(size)


class Loopback(RendezvousHandler):
    """A rendezvous of one node whose store nobody outside this machine can reach.

    torchrun's own listens on all interfaces and trusts who connects.
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
        """A name of our own."""
        return "loopback"

    @property
    def use_agent_store(self) -> bool:
        """Ranks are clients of this store."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """At once: there is no other node."""
        place = RendezvousStoreInfo(LOOPBACK, self._port)
        return RendezvousInfo(PrefixStore("agent", self._store), 0, 1, place)

    def is_closed(self) -> bool:
        """Never."""
        return False

    def set_closed(self) -> None:
        """Nothing to tell anybody."""

    def num_nodes_waiting(self) -> int:
        """No other node."""
        return 0

    def get_run_id(self) -> str:
        """Names this rendezvous."""
        return self._run_id

    def shutdown(self) -> bool:
        """The store ends with this process."""
        return True


class Logs(LogsSpecs):
    """Rank 0 writes to engine.log as a run of one process does, the others to a file each."""

    @property
    def root_log_dir(self) -> str:
        """The run's folder `ranks`."""
        return str(self._root_log_dir)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Where everything goes; ranks redirect their output themselves, so as to append."""
        nothing = dict.fromkeys(envs, "")
        unused = {rank: f"{self._root_log_dir}/torchrun-{rank}.json" for rank in envs}
        return LogsDest(nothing, nothing, nothing, nothing, unused)


def log_of(rank: int) -> str:
    """Where the stderr of a rank is, relative to the run folder."""
    return f"ranks/rank{rank}.log" if rank else "engine.log"


def stopped(folder: Path, size: int) -> Failed:
    """The last word after a SIGTERM: all ranks in order, or who was not."""
    said = {rank: _said(folder, rank) for rank in range(size)}
    wrong = {rank: f for rank, f in said.items() if f is not None and f.hint != "stopped"}
    if wrong:
        rank, failure = min(wrong.items(), key=lambda item: item[1].t)
        return _named(rank, failure)
    return Failed(error="Stopped as asked.", hint="stopped")


def first_cause(folder: Path, ended: RunResult) -> Failed:
    """Why the run failed: a rank's own error first, then a death by signal, then a lost peer."""
    signals: dict[int, int] = {}
    own: dict[int, Failed] = {}
    lost: dict[int, Failed] = {}
    silent: dict[int, int] = {}
    for rank, failure in ended.failures.items():
        said = _said(folder, rank)
        if said is None:
            signal_number = -failure.exitcode
            if signal_number > 0:
                signals[rank] = signal_number
            else:
                silent[rank] = failure.exitcode
        elif any(sign in said.error + said.traceback for sign in PEER_LOST):
            lost[rank] = said
        elif said.hint != "stopped" or len(ended.failures) == 1:
            own[rank] = said
    if own:
        rank, first = min(own.items(), key=lambda item: item[1].t)
        return _named(rank, first)
    for rank, number in signals.items():
        if number != signal.SIGTERM:
            name = signal.Signals(number).name
            return Failed(error=f"rank {rank} was ended by {name}; see {log_of(rank)}")
    for rank, code in silent.items():
        return Failed(
            error=f"rank {rank} exited with {code} and did not say why; see {log_of(rank)}"
        )
    if lost:
        rank, first = min(lost.items(), key=lambda item: item[1].t)
        return _named(rank, first)
    return Failed(error="Stopped as asked.", hint="stopped")


def _named(rank: int, failure: Failed) -> Failed:
    """A rank's failure as the run's. A usage error is of the run, not of a rank."""
    if failure.hint == "usage":
        return failure.model_copy(update={"t": 0.0})
    text = f"rank {rank}: {failure.error} (see {log_of(rank)})"
    return failure.model_copy(update={"t": 0.0, "error": text})


def _said(folder: Path, rank: int) -> Failed | None:
    try:
        return Failed.model_validate_json((folder / f"rank{rank}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _interrupt(number: int, _frame: Any) -> None:
    """As torchrun's own handler, but from the beginning."""
    raise SignalException("stopped", signal.Signals(number))


def _pass_on(number: int, _frame: Any) -> None:
    """The warden asks for stacks: every rank shall write its own."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), number)

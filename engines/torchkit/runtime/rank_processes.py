"""Rank processes: the engine's process starts the ranks of a run and waits until all have ended.

It also hosts the store at which the ranks meet. Only rank 0 sends messages; every rank writes its
failure to a file, and the engine's process sends the first cause. Ranks on further machines:
`rank_nodes`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError
from torch._C._distributed_c10d import TCPStore  # torch.distributed's, which does not export it

from engines.emitter import Emitter
from engines.messages import Failed
from engines.torchkit.runtime.distributed import TIMEOUT

LOOPBACK: Final = "127.0.0.1"
POLL_SECONDS: Final = 0.1

GRACE_SECONDS: Final = 30.0
"""Between SIGTERM and SIGKILL to the ranks, after a stop or the failure of one of them."""

PEER_LOST: Final = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistNetworkError",
    "DistBackendError", "remote process exited", "Timed out waiting", "recvValue failed",
)  # fmt: skip
"""Error texts of a rank that only lost its connection to another one."""

Process = subprocess.Popen[bytes]


class RankLayout(NamedTuple):
    """The ranks of a run, and where they meet."""

    size: int
    """Ranks on each node."""
    port: int
    """Of the store."""
    address: str = LOOPBACK
    """Of the store: the first node's, on the interface by which the others reach it."""
    interface: str = "lo"
    """Network interface of this node on the way to the others."""
    nodes: int = 1
    node: int = 0
    """Number of this node."""

    @property
    def total(self) -> int:
        """Ranks on all nodes."""
        return self.size * self.nodes


def run_ranks(size: int, run_dir: Path, emit: Emitter) -> Failed | None:
    """Run `size` ranks of the engine of `run_dir`; None if all of them ended well.

    Raises:
        Stopped: asked to stop before a rank was started.
    """
    folder = prepare_folder(run_dir, emit)
    store = open_store()
    ranks = start_ranks(RankLayout(size, store.port), run_dir)
    codes = wait_for_ranks(
        ranks, lambda: emit.stop_requested, lambda number: send_signal(ranks, number)
    )
    return decide_failure(folder, codes, emit)


def prepare_folder(run_dir: Path, emit: Emitter) -> Path:
    """The folder of the ranks' failures and logs, without failures of an earlier attempt.

    Raises:
        Stopped: asked to stop.
    """
    folder = run_dir / "ranks"
    folder.mkdir(exist_ok=True, mode=0o700)
    for old in folder.glob("*.json"):
        old.unlink()
    emit.check_stop()
    return folder


def decide_failure(folder: Path, codes: Sequence[int], emit: Emitter) -> Failed | None:
    """The `Failed` message of a run whose ranks ended with `codes`; None: all ended well."""
    if not any(codes):
        return None
    if emit.stop_requested:
        return failure_after_stop(folder, len(codes))
    return find_first_cause(folder, codes)


def open_store(address: str = LOOPBACK) -> TCPStore:
    """The store of the process group, on a free port of one interface.

    Without a socket of its own, `TCPStore` listens on all interfaces and trusts every client.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, 0), family=family)
    return TCPStore(
        address,
        listening.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        timeout=TIMEOUT,
        master_listen_fd=listening.detach(),
    )


def start_ranks(layout: RankLayout, run_dir: Path) -> list[Process]:
    """Start the ranks of this node; requests for stacks (SIGUSR1) are passed on to them."""
    ranks = [_start_rank(number, layout, run_dir) for number in range(layout.size)]
    signal.signal(signal.SIGUSR1, lambda number, _frame: send_signal(ranks, number))
    return ranks


def _start_rank(local: int, layout: RankLayout, run_dir: Path) -> Process:
    """Start one rank, with torchrun's environment variables; rank 0 inherits the event pipe."""
    rank = layout.node * layout.size + local
    names = ("WORKBENCH_LIFE_FD",) if rank else ("WORKBENCH_LIFE_FD", "WORKBENCH_EVENT_FD")
    environment = {
        "RANK": str(rank), "WORLD_SIZE": str(layout.total), "WORKBENCH_RANKS": str(layout.total),
        "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(layout.size),
        "MASTER_ADDR": layout.address, "MASTER_PORT": str(layout.port),
        "WORKBENCH_INTERFACE": layout.interface, "WORKBENCH_PARENT": str(os.getpid()),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "engines.child", str(run_dir)],
        env={**os.environ, **environment},
        pass_fds=[int(os.environ[name]) for name in names if name in os.environ],
    )


def wait_for_ranks(
    ranks: Sequence[Process], stop_requested: Callable[[], bool], stop: Callable[[int], None]
) -> list[int]:
    """Exit codes of processes; after a request or a failure of one `stop` is called with SIGTERM,
    and after the grace with SIGKILL."""
    deadline = None
    while None in (codes := [rank.poll() for rank in ranks]):
        if deadline is None and (stop_requested() or any(codes)):
            deadline = time.monotonic() + GRACE_SECONDS
            stop(signal.SIGTERM)
        elif deadline is not None and time.monotonic() > deadline:
            stop(signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return [code for code in codes if code is not None]


def send_signal(ranks: Sequence[Process], number: int) -> None:
    """Send a signal to the ranks that have not ended."""
    for rank in ranks:
        rank.send_signal(number)


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


def find_first_cause(folder: Path, codes: Sequence[int]) -> Failed:
    """First cause of a failed run: a rank's own error, else a signal, else a lost peer.

    `codes`: exit codes by rank, negative for a signal.
    """
    failed = {rank: code for rank, code in enumerate(codes) if code}
    signals: dict[int, int] = {}
    errors: dict[int, Failed] = {}
    lost: dict[int, Failed] = {}
    silent: dict[int, int] = {}
    for rank, code in failed.items():
        failure = _read_failure(folder, rank)
        if failure is None:
            if code < 0:
                signals[rank] = -code
            else:
                silent[rank] = code
        elif any(sign in failure.error + failure.traceback for sign in PEER_LOST):
            lost[rank] = failure
        elif failure.hint != "stopped" or len(failed) == 1:
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

"""Ranks of a run on several nodes of a Slurm job.

The engine's process is on the first node. It starts that node's ranks and, by one `srun`, a rank
group on each other node: `python -m engines.rank_group`, which starts the ranks there. Groups have
one connection, to the store at which the ranks meet; a group whose store is gone kills its ranks,
so that nothing outlives the engine's process. Through the store a group learns of a stop, and
leaves its exit codes and failures: a shared disk may show a file of another node a minute late.

A stop goes through the store, since srun turns a SIGTERM into a SIGKILL of its tasks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from torch._C._distributed_c10d import TCPStore

from datasets_mm.atomic_files import write_atomic
from engines.emitter import Emitter, EngineError
from engines.messages import Failed
from engines.torchkit.runtime.distributed import TIMEOUT
from engines.torchkit.runtime.rank_processes import (
    RankLayout,
    decide_failure,
    open_store,
    prepare_folder,
    send_signal,
    start_ranks,
    wait_for_ranks,
)

NODES: Final = "WORKBENCH_NODES"
"""Variable with the run's nodes, this one first: `gpu07=10.0.0.7,gpu08=10.0.0.8`."""
STOP: Final = "stop"
"""Key of the store: all ranks shall stop."""
LATE: Final = 1e9
"""Seconds: after whatever a rank itself says."""
_SIOCGIFADDR: Final = 0x8915
_OWN: Final = (
    "WORKBENCH_EVENT_FD", "WORKBENCH_LIFE_FD", "WORKBENCH_PARENT", "WORKBENCH_T0", "RANK",
)  # fmt: skip
"""Variables of the engine's process that mean nothing on another node."""


class RankNode(NamedTuple):
    """A node of the job."""

    name: str
    address: str
    """Where Slurm reaches it."""


def read_nodes(count: int) -> list[RankNode]:
    """The first `count` nodes of the job.

    Raises:
        EngineError: there are fewer, or this is no job.
    """
    pairs = [pair.partition("=") for pair in os.environ.get(NODES, "").split(",") if pair]
    if len(pairs) < count:
        raise EngineError(
            f"nnodes = {count}: this process has {len(pairs) or 1} of them; submit the run to "
            "Slurm (`workbench submit`), or set nnodes to 1"
        )
    return [RankNode(name, address) for name, _, address in pairs[:count]]


def run_ranks(size: int, nodes: Sequence[RankNode], run_dir: Path, emit: Emitter) -> Failed | None:
    """Run `size` ranks of the engine of `run_dir` on each node; None if all of them ended well.

    Raises:
        Stopped: asked to stop before a rank was started.
        EngineError: no srun here, or the other nodes cannot be reached.
    """
    folder = prepare_folder(run_dir, emit)
    address = find_local_address(nodes[1].address)
    store = open_store(address)
    layout = RankLayout(size, store.port, address, find_interface(address), len(nodes))
    others = _start_groups(layout, nodes, run_dir)
    ranks = start_ranks(layout, run_dir)

    def stop(number: int) -> None:
        send_signal(ranks, number)
        store.set(STOP, "1")
        if number == signal.SIGKILL:
            send_signal([others], signal.SIGTERM)  # it kills its tasks

    codes = wait_for_ranks(
        [*ranks, others], lambda: emit.stop_requested or store.check([STOP]), stop
    )
    for number, node in enumerate(nodes[1:], 1):
        codes += _take_codes(store, layout._replace(node=number), node, folder, codes[size])
    del codes[size]  # srun's own
    return decide_failure(folder, codes, emit)


def _start_groups(
    layout: RankLayout, nodes: Sequence[RankNode], run_dir: Path
) -> subprocess.Popen[bytes]:
    """Start a rank group on each node but the first; their output goes to this process's."""
    count = len(nodes) - 1
    began = time.time() - time.monotonic() + float(os.environ["WORKBENCH_T0"])
    environment = {name: text for name, text in os.environ.items() if name not in _OWN}
    environment |= {
        "MASTER_ADDR": layout.address, "MASTER_PORT": str(layout.port),
        "WORKBENCH_BEGAN": repr(began),
    }  # fmt: skip
    words = [
        "srun", f"--jobid={os.environ.get('SLURM_JOB_ID', '')}", f"--nodes={count}",
        f"--ntasks={count}", "--ntasks-per-node=1",
        f"--nodelist={','.join(node.name for node in nodes[1:])}", "--overlap", "--mem=0",
        "--cpu-bind=none", "--mpi=none", "--input=none", "--kill-on-bad-exit=0",
        sys.executable, "-m", "engines.rank_group", str(run_dir),
    ]  # fmt: skip
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, env=environment)
    except OSError as error:
        raise EngineError(
            f"nnodes = {len(nodes)}: srun cannot be started ({error.strerror})"
        ) from None


def _take_codes(
    store: TCPStore, layout: RankLayout, node: RankNode, folder: Path, srun_code: int
) -> list[int]:
    """Exit codes of a node's ranks, whose failures are written into `folder`."""
    first = layout.node * layout.size
    if not store.check([_result_key(layout.node)]):
        text = f"node {node.name} was lost, srun ended with {srun_code}; see engine.log"
        failed = Failed(error=text, t=LATE)
        write_atomic(folder / f"rank{first}.json", failed.model_dump_json())
        return [srun_code or 1] * layout.size
    result = json.loads(store.get(_result_key(layout.node)))
    for name, text in result["failures"].items():
        write_atomic(folder / name, text)
    return [int(code) for code in result["codes"]]


def _result_key(node: int) -> str:
    return f"result of node {node}"


def run_group(size: int, count: int, run_dir: Path) -> int:
    """The rank group of one node, in a task of srun; returns its exit code.

    `count`: nodes of the run. Task n of the step is node n + 1.
    """
    environment = os.environ
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    node = int(environment["SLURM_NODEID"]) + 1
    interface = find_interface(find_local_address(address))
    layout = RankLayout(size, port, address, interface, count, node)
    store = TCPStore(address, port, is_master=False, timeout=TIMEOUT)
    requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: requests.append(number))
    clean_variables()
    ranks = start_ranks(layout, run_dir)

    def stop(number: int) -> None:
        send_signal(ranks, number)
        store.set(STOP, "1")

    try:
        codes = wait_for_ranks(ranks, lambda: bool(requests) or store.check([STOP]), stop)
        names = [f"rank{node * size + local}.json" for local in range(size)]
        failures = {}
        for name in names:
            with contextlib.suppress(OSError):
                failures[name] = (run_dir / "ranks" / name).read_text()
        store.set(_result_key(node), json.dumps({"codes": codes, "failures": failures}))
    except RuntimeError as error:  # torch's DistNetworkError: the engine's process has ended
        send_signal(ranks, signal.SIGKILL)
        print(f"node {node}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return int(any(codes))


def clean_variables() -> None:
    """Remove what describes the step of srun, and count the ranks' time from the attempt's start.

    Clocks of nodes differ by milliseconds, and their monotonic ones by anything.
    """
    kept = ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_TMPDIR", "SLURM_CONF")
    for name in [n for n in os.environ if n.startswith("SLURM_") and n not in kept]:
        del os.environ[name]
    began = float(os.environ.pop("WORKBENCH_BEGAN"))
    os.environ["WORKBENCH_T0"] = repr(began - time.time() + time.monotonic())


def find_local_address(peer: str) -> str:
    """Address of this machine on the way to another; nothing is sent.

    Raises:
        EngineError: there is no way.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise EngineError(f"node {peer} cannot be reached: {error.strerror}") from None


def find_interface(address: str) -> str:
    """Name of the network interface that has an IPv4 address; empty: none, or another kind.

    gloo and NCCL are told by name; without one they choose themselves.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return ""

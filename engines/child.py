"""Engine process: `python -m engines.child RUN_DIR`.

Ties the process to its warden (parent-death signal and life pipe), reads the spec, runs the engine
and ends with a last message and an exit code. Imports no torch.

With `nproc_per_node` > 1 this process starts that many ranks, each of which is again
`python -m engines.child RUN_DIR`. Rank 0 sends the messages; failures go to this process. With
`nnodes` > 1 it also starts a `rank_group` on each other node of its Slurm job.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import platform
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Final, Literal, NoReturn

from pydantic import ValidationError

from datasets_mm.atomic_files import write_atomic
from engines import catalog, messages, out_of_memory, protocol
from engines.emitter import Emitter, EngineError, Stopped
from engines.process_memory import read_rss_peak
from results.text.secrets import mask_secrets

EXIT_FAILED: Final = 1
EXIT_STOPPED: Final = 143
"""128 + SIGTERM, as a shell would report it."""

_PR_SET_PDEATHSIG: Final = 1

Hint = Literal["failed", "oom-cuda", "oom-host", "stopped", "usage"]


def main(argv: list[str]) -> NoReturn:
    """Run the engine of one run folder and end the process; exit code 0 only after `Done`.

    The interpreter is not torn down: freeing the objects of torch and transformers takes 1.3 CPU
    seconds, and a process group that lost a peer may hang in its destructor.
    """
    if len(argv) != 2:
        sys.exit("usage: python -m engines.child RUN_DIR")
    run_dir, rank = Path(argv[1]), read_rank()
    if rank:
        redirect_output(run_dir / "ranks" / f"rank{rank}.log")
    tie_to_parent()
    set_openmp_spin()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    events, t0 = os.environ.get("WORKBENCH_EVENT_FD"), os.environ.get("WORKBENCH_T0")
    fd = os.open(os.devnull, os.O_WRONLY) if rank else int(events) if events else None
    emit = Emitter(fd, float(t0) if t0 else None)

    def request_stop(_signal: int, _frame: object) -> None:
        emit.stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # of a scheduler, to all; the warden stops us
    code = run_engine(emit, run_dir, rank)
    flushed = emit.close()
    code = code if flushed or code else EXIT_FAILED
    with contextlib.suppress(OSError):  # a full disk below engine.log fails no run
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run_engine(emit: Emitter, run_dir: Path, rank: int | None = None) -> int:
    """Read the spec, run its engine (or its ranks), send the last message."""
    try:
        spec = read_spec(run_dir)
        emit.send(
            messages.Hello(
                engine=spec.engine, pid=os.getpid(), versions={"python": platform.python_version()}
            )
        )
        emit.phase("import")
        if rank is None and catalog.count_local_ranks(spec) * catalog.count_nodes(spec) > 1:
            last_message = run_ranks(spec, run_dir, emit)
        else:
            catalog.load(spec.engine).run(spec, emit, run_dir)
            emit.send(messages.Done(dropped=emit.dropped, rss_peak=read_rss_peak()))
            last_message = None
    except BaseException as error:
        last_message = describe_failure(error)
    if last_message is None:
        return 0
    if rank is None:
        emit.send(last_message.model_copy(update={"rss_peak": read_rss_peak()}))
    else:
        write_failure(run_dir / "ranks" / f"rank{rank}.json", last_message, emit.now())
    return EXIT_STOPPED if last_message.hint == "stopped" else EXIT_FAILED


def describe_failure(error: BaseException) -> messages.Failed:
    """The `Failed` message for an exception; an unexpected one is written to stderr too."""
    if isinstance(error, Stopped):
        return messages.Failed(error="Stopped as asked.", hint="stopped")
    if isinstance(error, (EngineError, catalog.UnknownEngineError)):
        return messages.Failed(error=mask_secrets(str(error)), hint="usage")
    trace = mask_secrets(
        "".join(traceback.format_exception(error))
    )  # of an address with a password, say
    sys.stderr.write(trace)
    text = mask_secrets(f"{type(error).__name__}: {error}".splitlines()[0])[:500]
    return messages.Failed(error=text, hint=classify(error), traceback=trace)


def run_ranks(spec: protocol.RunSpec, run_dir: Path, emit: Emitter) -> messages.Failed | None:
    """Run the ranks until all have ended."""
    from engines.torchkit.runtime import distributed, rank_nodes, rank_processes  # torch, for ranks

    size, nodes = catalog.count_local_ranks(spec), catalog.count_nodes(spec)
    places = rank_nodes.read_nodes(nodes) if nodes > 1 else []
    distributed.check_ranks(size, spec.devices)
    if places:
        return rank_nodes.run_ranks(size, places, run_dir, emit)
    return rank_processes.run_ranks(size, run_dir, emit)


def read_rank() -> int | None:
    """The rank of this process, if it is one of several."""
    return int(os.environ["RANK"]) if "WORKBENCH_RANKS" in os.environ else None


def redirect_output(path: Path) -> None:
    """Redirect stdout and stderr of this process, C code included, to the end of a file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)


def write_failure(path: Path, failed: messages.Failed, t: float) -> None:
    """Write a rank's failure for its parent, atomically; `t`: seconds since the start."""
    write_atomic(path, failed.model_copy(update={"t": t}).model_dump_json())


def set_openmp_spin() -> None:
    """Let waiting OpenMP threads spin for some 10 µs, then sleep (read by libgomp).

    Samples per second of a small CLIP on two cores, alone and beside one busy process: libgomp's
    own default 366 and 117, sleeping at once (OMP_WAIT_POLICY=PASSIVE) 325 and 206, this 355 and
    185. The environment's settings win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def read_spec(run_dir: Path) -> protocol.RunSpec:
    """The content of spec.json, with the changed settings of a retry after an OOM.

    Raises:
        EngineError: it is missing, broken, or of another protocol.
    """
    path = run_dir / "spec.json"
    try:
        spec = protocol.RunSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(str(part) for part in first["loc"])
        raise EngineError(f"{path}: {location or 'the file'}: {first['msg']}") from None
    if spec.protocol != messages.PROTOCOL:
        raise EngineError(
            f"{path}: protocol {spec.protocol}, but this engine speaks {messages.PROTOCOL}; "
            "start the suite again with this version"
        )
    smaller = json.loads(os.environ.get("WORKBENCH_PARAMS") or "{}")
    return spec.model_copy(update={"params": {**spec.params, **smaller}})


def classify(error: BaseException) -> Hint:
    """Kind of failure of an exception, without importing torch."""
    return out_of_memory.classify_error(error) or "failed"


def tie_to_parent() -> None:
    """Die with the warden: by signal when its main thread ends, and on EOF of the life pipe.

    The signal also ends a process that is stuck inside a C call; the pipe also works when the
    engine was started by a launcher between the two.
    """
    parent = int(os.environ.get("WORKBENCH_PARENT", "0"))
    if parent and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(EXIT_STOPPED)
    life = os.environ.get("WORKBENCH_LIFE_FD")
    if life:
        arguments = (int(life),)
        threading.Thread(
            target=wait_for_parent_end, args=arguments, name="life", daemon=True
        ).start()


def wait_for_parent_end(fd: int) -> None:
    """Block until the warden's end of the pipe closes, then end this process group."""
    while True:
        try:
            if os.read(fd, 64):
                continue
        except InterruptedError:
            continue
        except OSError:
            pass
        break
    if os.getpgrp() == os.getpid():  # the leader takes loader workers with it
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main(sys.argv)

"""The engine's process: `python -m engines.child RUN_DIR`.

Ties the process to its warden (parent-death signal and life pipe), reads the spec, runs the engine
and turns every ending into a last message and an exit code. Knows no torch.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import platform
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from engines import catalog, protocol
from engines.emitter import Emitter, EngineError, Stopped

EXIT_FAILED: Final = 1
EXIT_STOPPED: Final = 143
"""128 + SIGTERM, as a shell would report it."""

_PR_SET_PDEATHSIG: Final = 1

Hint = Literal["failed", "oom-cuda", "oom-host", "stopped", "usage"]


def main(argv: list[str]) -> int:
    """Run the engine of one run folder; returns the exit code, 0 only after `Done`."""
    if len(argv) != 2:
        print("usage: python -m engines.child RUN_DIR", file=sys.stderr)  # noqa: T201
        return 2
    tie_to_parent()
    share_cores()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    fd = os.environ.get("WORKBENCH_EVENT_FD")
    t0 = os.environ.get("WORKBENCH_T0")
    emit = Emitter(int(fd) if fd else None, float(t0) if t0 else None)

    def request_stop(_signal: int, _frame: object) -> None:
        emit.stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)
    code = work(emit, Path(argv[1]))
    flushed = emit.close()
    return code if flushed or code else EXIT_FAILED


def work(emit: Emitter, run_dir: Path) -> int:
    """Read the spec, run its engine, say how it ended."""
    try:
        spec = read_spec(run_dir)
        emit.send(
            protocol.Hello(
                engine=spec.engine, pid=os.getpid(), versions={"python": platform.python_version()}
            )
        )
        emit.phase("import")
        catalog.load(spec.engine).run(spec, emit, run_dir)
        emit.send(protocol.Done(dropped=emit.dropped))
    except Stopped:
        emit.send(protocol.Failed(error="Stopped as asked.", hint="stopped"))
        return EXIT_STOPPED
    except (EngineError, catalog.UnknownEngineError) as error:
        emit.send(protocol.Failed(error=str(error), hint="usage"))
        return EXIT_FAILED
    except BaseException as error:
        hint = classify(error)
        text = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        trace = traceback.format_exc()
        sys.stderr.write(trace)
        emit.send(protocol.Failed(error=text, hint=hint, traceback=trace))
        return EXIT_FAILED
    return 0


def share_cores() -> None:
    """Let threads that wait for each other spin for some 10 µs, then sleep. libgomp reads it.

    Samples per second of a small CLIP on two cores, alone and beside one busy process: libgomp's
    own default 366 and 117, sleeping at once (OMP_WAIT_POLICY=PASSIVE) 325 and 206, this 355 and
    185. Settings of one's own win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def read_spec(run_dir: Path) -> protocol.RunSpec:
    """The content of spec.json.

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
        place = ".".join(str(part) for part in first["loc"])
        raise EngineError(f"{path}: {place or 'the file'}: {first['msg']}") from None
    if spec.protocol != protocol.PROTOCOL:
        raise EngineError(
            f"{path}: protocol {spec.protocol}, but this engine speaks {protocol.PROTOCOL}; "
            "start the suite again with this version"
        )
    return spec


def classify(error: BaseException) -> Hint:
    """What kind of failure an exception is, told without importing torch."""
    kind, text = type(error), str(error)
    if kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch"):
        return "oom-cuda"
    if "CUDA out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text:
        return "oom-cuda"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return "oom-host"
    return "failed"


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
        threading.Thread(target=watch_life, args=(int(life),), name="life", daemon=True).start()


def watch_life(fd: int) -> None:
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
    sys.exit(main(sys.argv))

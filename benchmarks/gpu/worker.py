"""The process that runs the steps: `python -m benchmarks.gpu.worker PIPE SCRATCH SMALL`.

Reads steps from stdin and writes messages to the pipe, a line of JSON each. Ends, with all that its
steps have started, when stdin closes: when the runner is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import Report, Skip


def main() -> None:
    pipe, scratch, small = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"
    os.set_inheritable(pipe, False)
    steps: queue.Queue[tuple[str, str]] = queue.Queue()
    threading.Thread(target=_read_steps, args=(steps,), daemon=True).start()
    import torch

    cuda = torch.cuda.is_available()

    def send(*message: Any) -> None:
        os.write(pipe, json.dumps(message).encode() + b"\n")

    send(cuda)
    while True:
        name, function = steps.get()
        print(f"\n== {name}", flush=True)
        report = Report(send, scratch, small, cuda)
        send("end", *run(report, function))


def run(report: Report, function: str) -> tuple[str, float, str]:
    """Standing, seconds and remark of a step that is run now."""
    start = time.monotonic()
    try:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(report)
    except Skip as reason:
        return "skipped", time.monotonic() - start, str(reason)
    except BaseException as error:
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0][:300]
        return "FAILED", time.monotonic() - start, f"{type(error).__name__}: {first}"
    failed = f"{report.failures} checks" if report.failures else ""
    return "FAILED" if failed else "ok", time.monotonic() - start, failed


def _read_steps(steps: queue.Queue[tuple[str, str]]) -> None:
    for line in sys.stdin:
        steps.put(tuple(json.loads(line)))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Rank group: `python -m engines.rank_group RUN_DIR`, a task of srun on a further node of a run.

It starts the ranks of its node, and ends with the engine's process on the first node.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from engines import catalog, child
from engines.emitter import EngineError


def main(argv: list[str]) -> int:
    """Run the ranks of this node; returns the exit code."""
    from engines.torchkit.runtime import distributed, rank_nodes  # torch

    run_dir = Path(argv[1])
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    spec = child.read_spec(run_dir)
    size, count = catalog.count_local_ranks(spec), catalog.count_nodes(spec)
    if spec.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        distributed.check_ranks(size, spec.devices)
    except EngineError as error:
        print(f"{os.uname().nodename}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return rank_nodes.run_group(size, count, run_dir)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""Memory estimator process: `python -m engines.memory_estimator`.

Reads one `MemoryQuery` a line from stdin and prints one `MemoryEstimate` a line: the workbench
never loads torch, and many queries share one load of it.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from importlib.util import find_spec
from typing import Any

from engines import catalog, model_catalog
from engines.emitter import EngineError, first_line
from engines.memory_query import MAPPED, OTHERS, MemoryEstimate, MemoryQuery


def answer_query(query: MemoryQuery) -> MemoryEstimate:
    """The engine's memory estimate, or an estimate with the `problem`. Errors never propagate."""
    began = time.perf_counter()
    catalog.load(query.engine)
    name = f"engines.{query.engine}.memory.estimate"
    if find_spec(f"engines.{query.engine}.memory") is None:
        return MemoryEstimate(problem=f"engine '{query.engine}': its memory cannot be forecast yet")
    try:
        model_catalog.load(query.model)
    except (LookupError, ValueError) as error:
        return MemoryEstimate(problem=str(error.args[0] if error.args else error))
    try:
        estimate: MemoryEstimate = importlib.import_module(name).estimate_memory(query)
    except EngineError as error:
        return MemoryEstimate(problem=str(error))
    except Exception as error:  # sizes that do not fit each other raise errors of many classes
        return MemoryEstimate(
            problem=f"its step cannot be simulated ({type(error).__name__}: {first_line(error)})"
        )
    host = estimate.host | other_ranks(estimate.host, count_local_ranks(query))
    return estimate.model_copy(update={"host": host, "seconds": time.perf_counter() - began})


def count_local_ranks(query: MemoryQuery) -> int:
    """Processes of the run on one machine, whatever the number of its nodes; 1 for a task that is
    not shared."""
    task = "train" if query.trains else "evaluate"
    shared = task in catalog.load(query.engine).RANK_TASKS
    return int(query.params.get("nproc_per_node", 1)) if shared else 1


def other_ranks(host: dict[str, int], ranks: int) -> dict[str, int]:
    """Host memory of further ranks of a node: everything but mapped pages, which they share."""
    private = sum(size for part, size in host.items() if part != MAPPED)
    return {OTHERS: (ranks - 1) * private} if ranks > 1 else {}


def disable_compiler() -> None:
    """Replace `torch.compile`, with which libraries decorate functions, by a no-op.

    Loading the compiler takes longer than an estimate.
    """
    import torch

    def uncompiled(function: Any = None, **_: Any) -> Any:
        return function if function is not None else lambda decorated: decorated

    vars(torch)["compile"] = uncompiled


def main() -> None:
    """Answer queries until stdin ends."""
    gc.disable()  # a million objects of libraries would be searched for garbage again and again
    disable_compiler()
    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        estimate = answer_query(MemoryQuery.model_validate_json(line))
        sys.stdout.write(estimate.model_dump_json() + "\n")
        sys.stdout.flush()
    os._exit(0)  # tearing down torch takes a second


if __name__ == "__main__":
    main()

"""How much memory would these runs take? A child that reads questions and says answers.

`python -m engines.estimate_memory` reads one `Want` a line from stdin and prints one `Need` a line:
the workbench never loads torch, and many questions share one load of it.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
from importlib.util import find_spec
from typing import Any

from engines import catalog, model_catalog
from engines.emitter import EngineError
from engines.memory_query import MAPPED, OTHERS, Need, Want


def answer(want: Want) -> Need:
    """The engine's forecast, or the sentence why there is none. One question that fails never ends
    the others.
    """
    began = time.perf_counter()
    catalog.load(want.engine)
    name = f"engines.{want.engine}.memory.estimate"
    if find_spec(name) is None:
        return Need(problem=f"engine '{want.engine}': its memory cannot be forecast yet")
    try:
        model_catalog.load(want.model)
    except (LookupError, ValueError) as error:
        return Need(problem=str(error.args[0] if error.args else error))
    try:
        need: Need = importlib.import_module(name).rehearse(want)
    except EngineError as error:
        return Need(problem=str(error))
    except Exception as error:  # sizes that do not fit each other end in a library's own words
        reason = (str(error).splitlines() or [""])[0][:200]
        return Need(problem=f"its step cannot be rehearsed ({type(error).__name__}: {reason})")
    host = need.host | others(need.host, int(want.params.get("nproc_per_node", 1)))
    return need.model_copy(update={"host": host, "seconds": time.perf_counter() - began})


def others(host: dict[str, int], ranks: int) -> dict[str, int]:
    """What ranks beside the first take of the host: all but the pages that they share."""
    own = sum(size for part, size in host.items() if part != MAPPED)
    return {OTHERS: (ranks - 1) * own} if ranks > 1 else {}


def compile_nothing() -> None:
    """Leave torch's compiler unloaded: libraries decorate functions with it that nobody calls here.

    Loading it takes longer than a rehearsal.
    """
    import torch

    def uncompiled(function: Any = None, **_: Any) -> Any:
        return function if function is not None else lambda given: given

    vars(torch)["compile"] = uncompiled


def main() -> None:
    """Answer until stdin ends."""
    gc.disable()  # a million objects of libraries would be searched for garbage again and again
    compile_nothing()
    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        need = answer(Want.model_validate_json(line))
        sys.stdout.write(need.model_dump_json() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""A model that another run of the suite has trained, `model = "run:<id>"`: kept, found, loaded.

What shapes the model (sizes, layers, projector, …) comes from that run; everything else from the
run that reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from engines import exhaustion, models, protocol
from engines.emitter import EngineError
from engines.torchkit import checkpoints, loop
from engines.torchkit.context import Context, Params, Trained


def resolve(run: Context[Params], shaping: Sequence[str]) -> Context[Params]:
    """The run with the model that is meant: for a `run:` model, the one which that run trained.

    `shaping`: the settings that the model brings along.

    Raises:
        EngineError: that run left no checkpoint.
    """
    if run.entry.family != "run":
        return run
    run_id = run.spec.model.partition(":")[2]
    folder = run.run_dir.parent / run_id / "checkpoints" / checkpoints.LAST
    if Path(run_id).name != run_id or not (folder / checkpoints.STATE).is_file():
        raise EngineError(
            f"model '{run.spec.model}': run '{run_id}' of this suite left no checkpoint; "
            "train it first, with save_model = true"
        )
    state = json.loads((folder / checkpoints.STATE).read_text(encoding="utf-8"))
    shape = {name: state["params"][name] for name in shaping if name in state["params"]}
    params = type(run.params).model_validate({**run.params.model_dump(), **shape})
    entry = models.load(state["model"])
    return replace(run, params=params, entry=entry, trained=Trained(folder, state))


def load(model: nn.Module, trained: Trained) -> None:
    """Put the trained weights (the averaged ones, if there are any) into the model.

    Raises:
        EngineError: they do not fit.
    """
    folder = trained.folder
    groups, _ = checkpoints.load(folder, next(model.parameters()).device)
    tensors = groups["model"] | groups.get("ema", {})  # running statistics are not averaged
    try:
        found = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        if exhaustion.of_device(error):
            raise
        raise EngineError(f"{folder}: does not fit the model: {error}".splitlines()[0]) from None
    if found.unexpected_keys:
        raise EngineError(f"{folder}: holds '{found.unexpected_keys[0]}', which the model has not")


def keep(
    run: Context[Any],
    job: loop.Training[Any],
    facts: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write the trained weights; checkpoints to resume from are no longer needed.

    `facts`: what else a later run needs to build the same model; `files`: texts beside the tensors.
    """
    run.emit.phase("save")
    root, spec = run.run_dir / "checkpoints", run.spec
    groups = {"model": loop.trainable_tensors(job.model)}
    groups |= {name: average.tensors() for name, average in job.averages.items()}
    state = {"step": job.steps, "model": spec.model, "params": spec.params, "seed": spec.seed}
    state |= {**job.saved_identity, **(facts or {})}
    written = checkpoints.save(root / checkpoints.LAST, groups, state, files)
    for file in written:
        path = str(file.path.relative_to(run.run_dir))
        run.emit.send(protocol.Artifact(path=path, sha256=file.sha256, size=file.size))
    checkpoints.remove_others(root, root / checkpoints.LAST)

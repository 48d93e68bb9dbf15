"""A model that another run has trained, `model = "run:<id>"`: kept, found, checked, loaded.

What shapes the model (sizes, layers, projector, …) comes from that run; everything else from the
run that reads it. Where it lies: `engines.trained_weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from engines import model_catalog, out_of_memory, protocol, trained_weights
from engines.emitter import EngineError
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.training_identity import content_digest
from engines.torchkit.runtime.context import Context, Params
from engines.torchkit.training import loop, nano_models
from engines.trained_weights import NoCheckpointError, Trained


def resolve(run: Context[Params], shaping: Sequence[str]) -> Context[Params]:
    """The run with the model that is meant: for a `run:` model, the one which that run trained.

    `shaping`: the settings that the model brings along.

    Raises:
        EngineError: that run left no checkpoint, one of another engine, or a damaged one.
    """
    if run.entry.family != "run":
        return run
    name = run.spec.model
    try:
        place = trained_weights.locate(name, run.run_dir.parents[2], run.run_dir.parent)
        found = Trained.read(place, name)
        entry = model_catalog.base_entry(found, run.params.base_model)
    except NoCheckpointError as error:
        raise EngineError(str(error)) from None
    except (LookupError, ValueError) as error:
        raise EngineError(f"model '{name}': {error.args[0] if error.args else error}") from None
    if found.engine not in ("", run.spec.engine):
        raise EngineError(
            f"model '{name}': was trained by engine {found.engine}, not {run.spec.engine}"
        )
    if entry.family == "run":
        raise EngineError(
            f"model '{name}': version 0.1 trained it further from {entry.name} and did not say "
            "from which base; set base_model to that"
        )
    if problem := checkpoints.problem(found.folder):
        raise EngineError(f"model '{name}': {problem}; copy the run again, or train it again")
    shape = found.shape(tuple(shaping))
    params = type(run.params).model_validate({**run.params.model_dump(), **shape})
    return replace(run, params=params, entry=entry, trained=found)


def facts(run: Context[Any]) -> dict[str, str]:
    """Which training the model comes from, for the record; none: it is the entry's own."""
    if run.trained is None:
        return {}
    return {"trained_by": run.trained.words, "base_model": run.entry.name}


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
        if out_of_memory.of_device(error):
            raise
        raise EngineError(f"{folder}: does not fit the model: {error}".splitlines()[0]) from None
    if found.unexpected_keys:
        raise EngineError(f"{folder}: holds '{found.unexpected_keys[0]}', which the model has not")


def keep(
    run: Context[Any],
    job: loop.Training[Any],
    state: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> None:
    """Write the trained weights; checkpoints to resume from are no longer needed.

    `state`: what else a later run needs to build the same model; `files`: texts beside the tensors;
    `base`: folder of a base from scratch, of which only this machine has a copy.
    """
    run.emit.phase("save")
    root = run.run_dir / trained_weights.CHECKPOINTS
    groups: dict[str, Mapping[str, Tensor]] = {"model": whole(job.model, run.trained)}
    groups |= {name: average.tensors() for name, average in job.averages.items()}
    content = {"step": job.steps, **origin(run), **job.saved_identity, **state}
    written = checkpoints.save(root / trained_weights.LAST, groups, content, files)
    announce(run, written)
    checkpoints.remove_others(root, root / trained_weights.LAST)
    if base is not None:
        nano_models.copy(base, root / trained_weights.BASE)


def announce(
    run: Context[Any], written: Sequence[checkpoints.Written], role: str = "checkpoint"
) -> None:
    """Tell the journal of files that are written."""
    for file in written:
        path = file.path.relative_to(run.run_dir).as_posix()
        run.emit.send(protocol.Artifact(path=path, sha256=file.sha256, size=file.size, role=role))


def origin(run: Context[Any]) -> dict[str, Any]:
    """Where the weights of this run come from, as its checkpoint keeps it."""
    spec, parent = run.spec, run.trained
    names = ("suite", "run_id", "label", "engine", "subset")
    return {
        "model": spec.model,
        "base_model": parent.base_model if parent else spec.model,
        "entry": run.entry.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "params": run.params.model_dump(mode="json"),
        "seed": spec.seed,
        "run": {name: getattr(spec, name) for name in names},
        "parents": [*parent.state.get("parents", ()), parent.words] if parent else [],
    }


def whole(model: nn.Module, parent: Trained | None) -> dict[str, Tensor]:
    """What training changed, in this run and in those before it, by name.

    A run that trains further may freeze what an earlier one has trained.
    """
    own = loop.trainable_tensors(model)
    if parent is None:
        return own
    with safe_open(parent.folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    return {name: t for name, t in model.state_dict().items() if name in names} | own


def check_base(trained: Trained | None, prints: Mapping[str, str]) -> None:
    """Compare the frozen weights here with those of the training. `prints`: see `weights_print`.

    Raises:
        EngineError: they are others; trained weights mean nothing without theirs.
    """
    known = trained.state.get("base_weights", {}) if trained else {}
    for part, own in prints.items():
        if own and known.get(part, own) != own:
            raise EngineError(
                f"model '{trained.base_model if trained else ''}': the weights of its {part} are "
                "not those that the run was trained with; set base_model to the folder that has "
                "them"
            )


def base_print(run: Context[Any], folder: Path | None) -> str:
    """`weights_print` of a base; empty where the run's own encoder folder stands in for it."""
    if run.trained and folder == run.trained.folder.parent / trained_weights.ENCODER:
        return ""
    return weights_print(folder)


def weights_print(folder: Path | None) -> str:
    """Digest of a folder's weights, see `content_digest`; empty: it has none."""
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    return hashlib.sha256(b"".join(map(content_digest, files))).hexdigest() if files else ""

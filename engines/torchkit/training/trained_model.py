"""Trained models, `model = "run:<id>"`: saving, resolving, checking and loading.

Architecture parameters (sizes, layers, projector, …) come from the training; all other settings
from the run that uses the model. Names and folders: `engines.trained_weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from engines import messages, model_catalog, out_of_memory, trained_weights
from engines.emitter import EngineError
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.checkpointing.training_identity import content_digest
from engines.torchkit.runtime.context import Context, Params
from engines.torchkit.training import loop, nano_models
from engines.trained_weights import NoCheckpointError, TrainedWeights


def resolve_trained_model(run: Context[Params], shaping: Sequence[str]) -> Context[Params]:
    """Resolve a `run:` model: the context with its weights, base entry and architecture.

    `shaping`: names of the architecture parameters. Other models: the context itself.

    Raises:
        EngineError: the run left no checkpoint, one of another engine, or a damaged one.
    """
    if run.entry.family != "run":
        return run
    name = run.spec.model
    try:
        location = trained_weights.locate(name, run.run_dir.parents[2], run.run_dir.parent)
        trained = TrainedWeights.read(location, name)
        entry = model_catalog.find_base_entry(trained, run.params.base_model)
    except NoCheckpointError as error:
        raise EngineError(str(error)) from None
    except (LookupError, ValueError) as error:
        raise EngineError(f"model '{name}': {error.args[0] if error.args else error}") from None
    if trained.engine not in ("", run.spec.engine):
        raise EngineError(
            f"model '{name}': was trained by engine {trained.engine}, not {run.spec.engine}"
        )
    if entry.family == "run":
        raise EngineError(
            f"model '{name}': version 0.1 trained it further from {entry.name} and did not say "
            "from which base; set base_model to that"
        )
    if problem := checkpoints.find_problem(trained.folder):
        raise EngineError(f"model '{name}': {problem}; copy the run again, or train it again")
    shape = trained.architecture_params(tuple(shaping))
    params = type(run.params).model_validate({**run.params.model_dump(), **shape})
    return replace(run, params=params, entry=entry, trained=trained)


def facts(run: Context[Any]) -> dict[str, str]:
    """Facts of the record about the training of the model; empty: the entry's own weights."""
    if run.trained is None:
        return {}
    return {"trained_by": run.trained.description, "base_model": run.entry.name}


def load_trained_weights(model: nn.Module, trained: TrainedWeights) -> None:
    """Load the trained weights (the EMA, if there is one) into the model.

    Raises:
        EngineError: they do not fit the model.
    """
    folder = trained.folder
    groups, _ = checkpoints.load(folder, next(model.parameters()).device)
    tensors = groups["model"] | groups.get("ema", {})  # running statistics are not averaged
    try:
        keys = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        if out_of_memory.is_device_failure(error):
            raise
        raise EngineError(f"{folder}: does not fit the model: {error}".splitlines()[0]) from None
    if keys.unexpected_keys:
        raise EngineError(f"{folder}: holds '{keys.unexpected_keys[0]}', which the model has not")


def save_trained_model(
    run: Context[Any],
    job: loop.TrainingJob[Any],
    state: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> None:
    """Write the trained weights to `checkpoints/last`, and remove the intermediate ones.

    `state`: what else a later run needs to build the same model; `files`: texts beside the tensors;
    `base`: folder of a base from scratch, which is copied beside the weights.
    """
    run.emit.phase("save")
    root = run.run_dir / trained_weights.CHECKPOINTS
    groups: dict[str, Mapping[str, Tensor]] = {"model": all_trained_tensors(job.model, run.trained)}
    groups |= {name: average.tensors() for name, average in job.averages.items()}
    position = job.position
    stage = {"stage": position.number} if position.number else {}
    planned = position.first_step + job.steps
    content = {
        "step": planned, "trained_steps": job.history.count_steps(position.number, planned),
        **stage, "history": job.history.as_state(),
        **describe_origin(run), **job.saved_identity, **state,
    }  # fmt: skip
    written = checkpoints.save(root / trained_weights.LAST, groups, content, files)
    send_artifacts(run, written)
    checkpoints.remove_others(root, root / trained_weights.LAST)
    if base is not None:
        nano_models.copy_base(base, root / trained_weights.BASE)


def send_artifacts(
    run: Context[Any], written: Sequence[checkpoints.WrittenFile], role: str = "checkpoint"
) -> None:
    """Send `Artifact` messages of written files."""
    for file in written:
        path = file.path.relative_to(run.run_dir).as_posix()
        run.emit.send(messages.Artifact(path=path, sha256=file.sha256, size=file.size, role=role))


def describe_origin(run: Context[Any]) -> dict[str, Any]:
    """Model, settings and parents of this training, for its checkpoint."""
    spec, parent = run.spec, run.trained
    names = ("suite", "run_id", "label", "engine", "subset")
    return {
        "model": spec.model,
        "base_model": parent.base_model if parent else spec.model,
        "entry": run.entry.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "params": run.params.model_dump(mode="json"),
        "seed": spec.seed,
        "run": {name: getattr(spec, name) for name in names},
        "parents": [*parent.state.get("parents", ()), parent.description] if parent else [],
    }


def all_trained_tensors(model: nn.Module, parent: TrainedWeights | None) -> dict[str, Tensor]:
    """Tensors that this run or its parents trained, by name.

    A run that trains further may freeze what an earlier one trained.
    """
    tensors = trainable_tensors(model)
    if parent is None:
        return tensors
    with safe_open(parent.folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    return {name: t for name, t in model.state_dict().items() if name in names} | tensors


def check_base_weights(trained: TrainedWeights | None, digests: Mapping[str, str]) -> None:
    """Compare the frozen weights here with those of the training. `digests`: see `weights_digest`.

    Raises:
        EngineError: they are others; trained weights mean nothing without theirs.
    """
    expected = trained.state.get("base_weights", {}) if trained else {}
    for part, digest in digests.items():
        if digest and expected.get(part, digest) != digest:
            raise EngineError(
                f"model '{trained.base_model if trained else ''}': the weights of its {part} are "
                "not those that the run was trained with; set base_model to the folder that has "
                "them"
            )


def base_digest(run: Context[Any], folder: Path | None) -> str:
    """`weights_digest` of a base; empty where the run's exported encoder replaces it."""
    if run.trained and folder == run.trained.folder.parent / trained_weights.ENCODER:
        return ""
    return weights_digest(folder)


def weights_digest(folder: Path | None) -> str:
    """Digest of a folder's weights, see `content_digest`; empty: it has none."""
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    return hashlib.sha256(b"".join(map(content_digest, files))).hexdigest() if files else ""

"""A model that another run of the suite has trained: `model = "run:<id>"`.

What shapes the model (image size, layers, …) comes from that run; everything else from this one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import nn

from engines import models
from engines.emitter import EngineError
from engines.protocol import RunSpec
from engines.retrieval.context import Context
from engines.torchkit import checkpoints

SHAPING: Final = (
    "image_size", "max_tokens", "layers", "text_layers", "vision_layers", "temperature",
    "use_instruction", "layer_fusion", "scoring", "fusion_width", "fusion_queries", "late_width",
    "loss",
)  # fmt: skip
TOKENIZER: Final = "tokenizer.json"


def resolve(run: Context) -> Context:
    """The run with the model that is meant: for a `run:` model, the one which that run trained.

    Raises:
        EngineError: that run left no checkpoint.
    """
    if run.entry.family != "run":
        return run
    run_id = run.spec.model.partition(":")[2]
    folder = run.run_dir.parent / run_id / "checkpoints" / "last"
    if Path(run_id).name != run_id or not (folder / checkpoints.STATE).is_file():
        raise EngineError(
            f"model '{run.spec.model}': run '{run_id}' of this suite left no checkpoint; "
            "train it first, with save_model = true"
        )
    state = json.loads((folder / checkpoints.STATE).read_text(encoding="utf-8"))
    shape = {name: state["params"][name] for name in SHAPING if name in state["params"]}
    params = type(run.params).model_validate({**run.params.model_dump(), **shape})
    return replace(run, params=params, entry=models.load(state["model"]), trained=folder)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Put the trained weights (the averaged ones, if there are any) into the model.

    Raises:
        EngineError: they do not fit.
    """
    groups, _ = checkpoints.load(folder, torch.device("cpu"))
    tensors = groups["model"] | groups.get("ema", {})  # running statistics are not averaged
    try:
        found = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise EngineError(f"{folder}: does not fit the model: {error}".splitlines()[0]) from None
    if found.unexpected_keys:
        raise EngineError(f"{folder}: holds '{found.unexpected_keys[0]}', which the model has not")


def describe(spec: RunSpec, step: int) -> dict[str, object]:
    """What a checkpoint says of its model, for `resolve`."""
    return {"step": step, "model": spec.model, "params": spec.params, "seed": spec.seed}


def files(tokenizer: str) -> dict[str, str]:
    """Text files of a checkpoint beside its tensors."""
    return {TOKENIZER: tokenizer} if tokenizer else {}

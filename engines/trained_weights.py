"""Where trained weights lie and which run trained them, read without torch.

Three names lead to a checkpoint: `run:ID`, a run of the same suite; `run:SUITE/ID`, a run of the
same log root; `path:/abs/dir`, a checkpoint folder or a run folder anywhere. Apart from `models`,
whose entries name weights that nobody trained here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from engines.protocol import RunSpec

CHECKPOINTS: Final = "checkpoints"
LAST: Final = "last"
"""Folder of the weights that a finished training keeps."""
STATE: Final = "state.json"
BASE: Final = "base"
"""Folder, beside the weights, of a base that was made from scratch on the machine that trained."""
RUN: Final = "run:"
PATH: Final = "path:"
ENCODER: Final = "encoder"
"""Folder, beside the weights, of a trained encoder in its library's own layout."""
ADAPTER: Final = "adapter"
"""Folder, beside the weights, of trained low-rank adapters in PEFT's layout."""
TRAINS: Final = "train"


class NoCheckpointError(ValueError):
    """There are no trained weights under a name; one sentence with what is there instead."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint folder, and what is known of its training."""

    folder: Path
    state: dict[str, Any]
    """Content of its state.json."""
    spec: RunSpec | None = None
    """Of the run; None: only the checkpoint folder was copied."""

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """The checkpoint in this folder, or in the run folder that this is.

        Raises:
            NoCheckpointError: `name` leads to no trained weights.
        """
        found = checkpoint_folder(folder)
        if found is None:
            raise NoCheckpointError(f"model '{name}': {absence(folder)}")
        try:
            state = json.loads((found / STATE).read_text(encoding="utf-8"))
            if not isinstance(state["model"], str) or not isinstance(state["params"], dict):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise NoCheckpointError(
                f"model '{name}': {found / STATE} is damaged; copy the folder again, or train again"
            ) from None
        return cls(found, state, read_spec(found.parent.parent))

    @property
    def run(self) -> Mapping[str, Any]:
        """Suite, run id, label, engine and subset of the training, as far as they are known."""
        said = self.state.get("run")
        if isinstance(said, dict):
            return said
        if self.spec is None:  # version 0.1 kept the settings alone
            return {}
        names = ("suite", "run_id", "label", "engine", "subset")
        return {name: getattr(self.spec, name) for name in names}

    @property
    def engine(self) -> str:
        """The engine that trained; empty: not known."""
        return str(self.run.get("engine") or "")

    @property
    def base_model(self) -> str:
        """Name of the model that the training, or the first of several, began with."""
        return str(self.state.get("base_model") or self.state["model"])

    @property
    def params(self) -> dict[str, Any]:
        """Every setting of the training."""
        found: dict[str, Any] = self.state["params"]
        return found

    def shape(self, shaping: tuple[str, ...]) -> dict[str, Any]:
        """The settings that the weights bring along."""
        return {name: self.params[name] for name in shaping if name in self.params}

    @property
    def words(self) -> str:
        """Which training it was, for the facts of a run that uses the weights."""
        run = self.run
        place = "/".join(str(run[key]) for key in ("suite", "run_id") if run.get(key))
        label = f" ({run['label']})" if run.get("label") else ""
        subset = f", trained on {run['subset']}" if run.get("subset") else ""
        prints = str(self.state.get("subset_fingerprint") or "")[:12]
        data = f" ({prints})" if subset and prints else ""
        seed = f", seed {self.state['seed']}" if "seed" in self.state else ""
        steps = f", {self.state.get('step', 0):,} steps{seed}"
        return f"{place or self.folder}{label}{subset}{data}{steps}"


def locate(name: str, log_root: Path, runs: Path | None = None) -> Path:
    """The folder that a `run:` or `path:` name means.

    `runs`: folder of the runs that a name without a suite is one of.

    Raises:
        NoCheckpointError: it is no such name.
    """
    if name.startswith(PATH):
        return Path(name.removeprefix(PATH)).expanduser()
    suite, _, run_id = name.removeprefix(RUN).rpartition("/")
    place = log_root / suite / "runs" if suite else runs
    if place is None or not plain(run_id) or (suite and not plain(suite)):
        raise NoCheckpointError(
            f"model '{name}': a run of this name left no checkpoint; write run:ID or run:SUITE/ID"
        )
    return place / run_id


def plain(name: str) -> bool:
    """Whether a name is that of one folder, and leads nowhere else."""
    return bool(name) and Path(name).name == name and name != ".."


def checkpoint_folder(folder: Path) -> Path | None:
    """The checkpoint that this folder is or holds: itself, `checkpoints/last`, `last`."""
    for found in (folder, folder / CHECKPOINTS / LAST, folder / LAST):
        if (found / STATE).is_file() and not (found / "optimizer.safetensors").exists():
            return found
    return None


def read_spec(run_dir: Path) -> RunSpec | None:
    """The spec of a run folder; None: it has none that can be read."""
    try:
        return RunSpec.model_validate_json((run_dir / "spec.json").read_bytes())
    except (OSError, ValidationError):
        return None


def absence(folder: Path) -> str:
    """Why a folder holds no trained weights, what it holds instead, and what to do."""
    if not folder.is_dir():
        return (
            f"run '{folder.name}' left no checkpoint: there is no folder {folder}; "
            "`workbench results list` names the runs"
        )
    spec, left = read_spec(folder), ", ".join(_left(folder)) or "nothing"
    if spec is None:
        return (
            f"{folder} is neither a run's folder nor a checkpoint (no spec.json, no {STATE}); name "
            "the folder that holds checkpoints/last"
        )
    said = f"run '{spec.run_id}' left no checkpoint"
    if spec.task != TRAINS:
        of = f" of {spec.model}" if spec.model.startswith((RUN, PATH)) else ""
        needs = f" of {', '.join(spec.needs)}" if spec.task == "ensemble" else of
        return f"{said}: its task was {spec.task}{needs}, and it left {left}; name a training"
    if spec.params.get("save_model") is False:
        return f"{said}: save_model was false, and it left {left}; train it with save_model = true"
    return f"{said}: its training has not ended, and it left {left}; `workbench resume` goes on"


def _left(folder: Path) -> list[str]:
    checkpoints = sorted(p.name for p in (folder / CHECKPOINTS).glob("step-*"))
    tables = sorted(p.name for p in folder.glob("*.csv"))  # a submission
    names = [name for name in ("predictions", "summary.json") if (folder / name).exists()]
    return [*checkpoints[-1:], *tables, *names]

"""Trained weights: their folder and the run that trained them, read without torch.

Names of trained weights: `run:ID`, a run of the same suite; `run:SUITE/ID`, a run of the same log
root; `path:/abs/dir`, a checkpoint folder or a run folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from engines.protocol import RunSpec
from results.text.renamed_words import rename_keys

CHECKPOINTS: Final = "checkpoints"
LAST: Final = "last"
"""Folder of the final weights of a training."""
STATE: Final = "state.json"
BASE: Final = "base"
"""Folder, beside the weights, of the base from scratch."""
RUN_PREFIX: Final = "run:"
PATH_PREFIX: Final = "path:"
ENCODER: Final = "encoder"
"""Folder, beside the weights, of a trained encoder in its library's own layout."""
ADAPTER: Final = "adapter"
"""Folder, beside the weights, of trained low-rank adapters in PEFT's layout."""
TRAINS: Final = "train"


class NoCheckpointError(ValueError):
    """No trained weights under a name; one sentence with what is there instead."""


@dataclass(frozen=True)
class TrainedWeights:
    """A checkpoint folder with its state and the spec of its training."""

    folder: Path
    state: dict[str, Any]
    """Content of its state.json."""
    spec: RunSpec | None = None
    """Spec of the run; None: only the checkpoint folder was copied."""

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """The checkpoint in this folder, or in the run folder that this is.

        Raises:
            NoCheckpointError: `name` leads to no trained weights.
        """
        checkpoint = find_checkpoint(folder)
        if checkpoint is None:
            raise NoCheckpointError(f"model '{name}': {explain_absence(folder)}")
        try:
            state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
            if not isinstance(state["model"], str) or not isinstance(state["params"], dict):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise NoCheckpointError(
                f"model '{name}': {checkpoint / STATE} is damaged; copy the folder again, or train "
                "again"
            ) from None
        return cls(checkpoint, state, read_spec(checkpoint.parent.parent))

    @property
    def run(self) -> Mapping[str, Any]:
        """Suite, run id, label, engine and subset of the training; empty: not known."""
        run = self.state.get("run")
        if isinstance(run, dict):
            return run
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
        """Name of the model that the training, or the first of several, started from."""
        return str(self.state.get("base_model") or self.state["model"])

    @property
    def params(self) -> dict[str, Any]:
        """Every setting of the training."""
        params: dict[str, Any] = rename_keys(self.state["params"])
        return params

    def architecture_params(self, shaping: tuple[str, ...]) -> dict[str, Any]:
        """The training's values of the settings in `shaping`."""
        return {name: self.params[name] for name in shaping if name in self.params}

    @property
    def description(self) -> str:
        """The training in words, for the facts of a run that uses the weights."""
        run = self.run
        run_name = "/".join(str(run[key]) for key in ("suite", "run_id") if run.get(key))
        label = f" ({run['label']})" if run.get("label") else ""
        subset = f", trained on {run['subset']}" if run.get("subset") else ""
        prints = str(self.state.get("subset_fingerprint") or "")[:12]
        data = f" ({prints})" if subset and prints else ""
        seed = f", seed {self.state['seed']}" if "seed" in self.state else ""
        count = self.state.get("trained_steps", self.state.get("step", 0))
        steps = f", {count:,} steps{seed}"
        return f"{run_name or self.folder}{label}{subset}{data}{steps}"


def locate(name: str, log_root: Path, runs: Path | None = None) -> Path:
    """The folder of a `run:` or `path:` name.

    `runs`: folder of the suite's runs, for a name without a suite.

    Raises:
        NoCheckpointError: it is no such name.
    """
    if name.startswith(PATH_PREFIX):
        return Path(name.removeprefix(PATH_PREFIX)).expanduser()
    suite, _, run_id = name.removeprefix(RUN_PREFIX).rpartition("/")
    runs_folder = log_root / suite / "runs" if suite else runs
    if runs_folder is None or not is_folder_name(run_id) or (suite and not is_folder_name(suite)):
        raise NoCheckpointError(
            f"model '{name}': a run of this name left no checkpoint; write run:ID or run:SUITE/ID"
        )
    return runs_folder / run_id


def is_folder_name(name: str) -> bool:
    """Whether a name is a plain folder name, not a path."""
    return bool(name) and Path(name).name == name and name != ".."


def find_checkpoint(folder: Path) -> Path | None:
    """The final checkpoint of a folder: itself, `checkpoints/last` or `last`; None: none."""
    for candidate in (folder, folder / CHECKPOINTS / LAST, folder / LAST):
        if (candidate / STATE).is_file() and not (candidate / "optimizer.safetensors").exists():
            return candidate
    return None


def read_spec(run_dir: Path) -> RunSpec | None:
    """The spec of a run folder; None: it has no readable one."""
    try:
        return RunSpec.model_validate_json((run_dir / "spec.json").read_bytes())
    except (OSError, ValidationError):
        return None


def explain_absence(folder: Path) -> str:
    """Why a folder holds no trained weights, what it holds instead, and what to do."""
    if not folder.is_dir():
        return (
            f"run '{folder.name}' left no checkpoint: there is no folder {folder}; "
            "`workbench results list` names the runs"
        )
    spec, contents = read_spec(folder), ", ".join(_list_contents(folder)) or "nothing"
    if spec is None:
        return (
            f"{folder} is neither a run's folder nor a checkpoint (no spec.json, no {STATE}); name "
            "the folder that holds checkpoints/last"
        )
    sentence = f"run '{spec.run_id}' left no checkpoint"
    if spec.task != TRAINS:
        model_note = f" of {spec.model}" if spec.model.startswith((RUN_PREFIX, PATH_PREFIX)) else ""
        needs = f" of {', '.join(spec.needs)}" if spec.task == "ensemble" else model_note
        return (
            f"{sentence}: its task was {spec.task}{needs}, and it left {contents}; name a training"
        )
    if spec.params.get("save_model") is False:
        return (
            f"{sentence}: save_model was false, and it left {contents}; train it with "
            "save_model = true"
        )
    return (
        f"{sentence}: its training has not ended, and it left {contents}; "
        "`workbench resume` goes on"
    )


def _list_contents(folder: Path) -> list[str]:
    checkpoints = sorted(p.name for p in (folder / CHECKPOINTS).glob("step-*"))
    tables = sorted(p.name for p in folder.glob("*.csv"))  # a submission
    names = [name for name in ("predictions", "summary.json") if (folder / name).exists()]
    return [*checkpoints[-1:], *tables, *names]

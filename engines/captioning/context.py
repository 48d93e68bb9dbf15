"""What every part of a run is handed: the request, the settings, and where to speak and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engines.captioning.params import Params
from engines.emitter import Emitter
from engines.models import ModelEntry
from engines.protocol import RunSpec
from engines.torchkit.precision import Precision


@dataclass(frozen=True)
class Trained:
    """What another run of the suite has left: its checkpoint folder and what that says of it."""

    folder: Path
    state: dict[str, Any]


@dataclass(frozen=True)
class Context:
    """One run of the engine."""

    spec: RunSpec
    params: Params
    precision: Precision
    emit: Emitter
    run_dir: Path
    entry: ModelEntry
    trained: Trained | None = None

    @property
    def device(self) -> torch.device:
        """What the run computes on."""
        return self.precision.device

    @property
    def cache_root(self) -> Path:
        """Where subsets, images, features and language models from scratch are kept."""
        return Path(self.spec.cache_root)

    def say(self, done: int, total: int, unit: str) -> None:
        """Progress of a long task; leaves it when somebody asked the engine to stop."""
        self.emit.check_stop()
        self.emit.progress(done, total, unit)

"""What every part of a run is handed: the request, the settings, and where to speak and write."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from engines.emitter import Emitter
from engines.models import ModelEntry
from engines.protocol import RunSpec
from engines.retrieval.params import Params
from engines.torchkit.distributed import Team
from engines.torchkit.precision import Precision


@dataclass(frozen=True)
class Context:
    """One run of the engine."""

    spec: RunSpec
    params: Params
    precision: Precision
    emit: Emitter
    run_dir: Path
    entry: ModelEntry
    trained: Path | None = None
    """Checkpoint folder of the run that trained the model; None: the entry's own weights."""
    team: Team = field(default_factory=Team)
    """The processes that train together."""

    @property
    def device(self) -> torch.device:
        """What the run computes on."""
        return self.precision.device

    @property
    def cache_root(self) -> Path:
        """Where subsets, images, tokenizers and features are kept."""
        return Path(self.spec.cache_root)

    def say(self, done: int, total: int, unit: str) -> None:
        """Progress of a long task; leaves it when somebody asked the engine to stop."""
        self.emit.check_stop()
        self.emit.progress(done, total, unit)

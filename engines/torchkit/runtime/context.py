"""What every part of a run is handed: the request, the settings, and where to speak and write.

The same for all engines that train; each names its own settings in its `context` module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch

from engines import param_sections
from engines.emitter import Emitter
from engines.model_catalog import ModelEntry
from engines.protocol import RunSpec
from engines.torchkit.data.prefetch import InputPipeline
from engines.torchkit.data.subsets import Source
from engines.torchkit.runtime.distributed import Team
from engines.torchkit.runtime.precision import Precision
from engines.trained_weights import Trained

Params = TypeVar("Params", bound=param_sections.Data)


@dataclass(frozen=True)
class Context(Generic[Params]):
    """One run of an engine."""

    spec: RunSpec
    params: Params
    precision: Precision
    emit: Emitter
    run_dir: Path
    entry: ModelEntry
    trained: Trained | None = None
    """What another run has left of the model; None: the entry's own weights."""
    team: Team = field(default_factory=Team)
    """The processes that train together."""

    @property
    def device(self) -> torch.device:
        """What the run computes on."""
        return self.precision.device

    @property
    def pipeline(self) -> InputPipeline:
        """How its batches reach the device."""
        machine = cast(
            "param_sections.Machine", self.params
        )  # a section of every engine that trains
        return InputPipeline.of(machine, self.device, self.team.size)

    @property
    def cache_root(self) -> Path:
        """Where subsets, images, tokenizers, features and models from scratch are kept."""
        return Path(self.spec.cache_root)

    @property
    def source(self) -> Source:
        """Where its subsets come from."""
        params = self.params
        return Source(self.cache_root, params.data_root, params.image_root or "")

    def say(self, done: int, total: int, unit: str) -> None:
        """Progress of a long task; leaves it when somebody asked the engine to stop."""
        self.emit.check_stop()
        self.emit.progress(done, total, unit)

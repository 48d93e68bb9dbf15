"""Run context: spec, settings, device, emitter and folder of one run.

Shared by all engines that train; each binds its `Params` in its own `context` module.
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
from engines.torchkit.data.subset_source import SubsetSource
from engines.torchkit.runtime.distributed import ProcessGroup
from engines.torchkit.runtime.precision import Precision
from engines.trained_weights import TrainedWeights

Params = TypeVar("Params", bound=param_sections.Data)


@dataclass(frozen=True)
class Context(Generic[Params]):
    """Everything that the parts of one run share; immutable."""

    spec: RunSpec
    params: Params
    precision: Precision
    emit: Emitter
    run_dir: Path
    entry: ModelEntry
    trained: TrainedWeights | None = None
    """Weights that another run trained (`model = run:…`); None: those of `entry`."""
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    """Ranks of the run; size 1 without `nproc_per_node` and `nnodes`."""

    @property
    def device(self) -> torch.device:
        """Device of the run's precision."""
        return self.precision.device

    @property
    def pipeline(self) -> InputPipeline:
        """Input pipeline by the section `Runtime`."""
        runtime = cast(
            "param_sections.Runtime", self.params
        )  # a section of every engine that trains
        return InputPipeline.from_settings(runtime, self.device, self.process_group.local_size)

    @property
    def cache_root(self) -> Path:
        """Cache folder of subsets, images, tokenizers, features and models from scratch."""
        return Path(self.spec.cache_root)

    @property
    def source(self) -> SubsetSource:
        """Source of the run's subsets."""
        params = self.params
        return SubsetSource(self.cache_root, params.data_root, params.image_root or "")

    def report_progress(self, done: int, total: int, unit: str) -> None:
        """Send progress of a long task.

        Raises:
            Stopped: the engine was asked to stop.
        """
        self.emit.check_stop()
        self.emit.progress(done, total, unit)

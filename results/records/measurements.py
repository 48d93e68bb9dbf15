"""Fields of measurements, shared by the messages of engines and the records of runs.

Records are stored: a field is added with a default, and a change needs a step in `migrations`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class MetricFields(BaseModel):
    """One number of quality, with its interval."""

    name: str
    """`recall@1`, `mrr@10`, …; a variant belongs into the name (`recall@1[image only]`)."""
    value: float
    split: str
    """The subset it was measured on, or `train`."""
    n: int
    low: float | None = None
    high: float | None = None
    method: str = ""
    """How the interval was made: `bootstrap over queries, 1000, 95%`."""
    higher_is_better: bool = True
    scores_file: str | None = None
    """Per-item scores, relative to the run folder, for paired tests."""


class EvaluationFields(BaseModel):
    """Cost of evaluating one split. Seconds, with a device synchronization at every edge."""

    split: str
    queries: int
    passages: int
    batches: int = 0
    """Batches that were encoded: of the queries, and of the corpus where it was not reused."""
    depth: int = 0
    """Passages that were ranked for each query."""
    search: str = "exact"
    precision: str = "fp32"
    """Of the passage vectors that were searched; scores are summed in fp32."""
    time_to_first_batch: float | None = None
    """Process start to the end of the first encoded batch; null where another split had it."""
    corpus_seconds: float | None = None
    """Encoding the corpus (and building its index); null: reused from another split."""
    query_seconds: float
    """Encoding the queries."""
    search_seconds: float
    """Searching with the whole queries; ablations are not in it."""
    score_seconds: float = 0.0
    """Metrics, intervals and files, and whatever the ablations cost."""

    @property
    def epoch_seconds(self) -> float:
        """Encoding and searching once over all queries of the split."""
        return (self.corpus_seconds or 0.0) + self.query_seconds + self.search_seconds


class EpochFields(BaseModel):
    """A whole epoch of a training."""

    stage: int = 0
    """Number of its stage, from 1; 0: the training has no stages."""
    epoch: int
    """Number within its stage, from 1."""
    steps: int | None = None
    """Optimizer steps; None: not known."""
    loss: float | None = None
    """Mean over the training samples; None: not known, as of a run that was resumed within it."""
    seconds: float | None = None
    """Of the training steps, validation and checkpoints not among them; None: likewise."""
    validation: dict[str, float] = {}
    """Validation metrics by name; empty: no validation."""
    since_best: int | None = None
    """Validations since the best one, 0: this one; None: nothing is monitored."""
    patience: int | None = None
    """Of early stopping; None: off."""
    stopped: bool = False
    """Early stopping ended the training, or its stage, here."""


class StageFields(BaseModel):
    """A stage of a training."""

    stage: int
    """From 1."""
    name: str = ""
    settings: dict[str, Any] = {}
    """What the stage sets of its own."""
    trainable_parameters: int
    planned_steps: int
    steps: int
    planned_epochs: float
    epochs: float

"""Schema of results.jsonl: one line, a `RunRecord`, for each finished attempt of a run.

Persisted, so versioned and never edited in place: a correction is a later line. An unmeasured
number is a `Reading` without a value and with a reason; it is never 0.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from results.records.measurements import (
    EpochFields,
    EvaluationFields,
    MetricFields,
    StageFields,
)

SCHEMA: Final = 2

NOT_MEASURED_SEPARATELY: Final = "the record is from before waiting for data was measured apart"
NOT_MEASURED_THEN: Final = "the record is from before it was measured"

Cause = Literal[
    "completed", "failed", "killed", "oom-cuda", "oom-host", "stopped", "hung", "supervisor-lost",
    "protocol-error", "storage-lost", "skipped", "pruned", "unknown",
]  # fmt: skip


class StoredModel(BaseModel):
    """Base of all persisted models: unknown fields of later versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")


class Reading(StoredModel):
    """A measured number, or the reason why there is none."""

    value: float | None = None
    reason: str = ""
    low: float | None = None
    high: float | None = None
    method: str = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.value is None and not self.reason:
            raise ValueError("a reading without a value needs a reason")
        return self


class TrialRecord(StoredModel):
    """A run's place in a search."""

    number: int
    settings: dict[str, Any] = {}
    """The settings that are searched, with the values of this trial."""


class Identity(StoredModel):
    """Identity of a run. Records with equal identity but another attempt belong to one run."""

    suite: str
    run_id: str
    attempt: int = 1
    engine: str
    task: str
    subset: str
    subset_fingerprint: str = ""
    model: str
    base_model: str = ""
    """Of a trained model (`run:` or `path:`): the model that its training began with."""
    model_revision: str = ""
    params: dict[str, Any] = {}
    seed: int = 42
    repeat: int = 0
    label: str = ""
    plan_hash: str = ""
    probe_steps: int = 0
    """Timed steps that a cost probe was to train at most; 0: no cost probe."""
    trial: TrialRecord | None = None
    """None: the run is no trial of a search."""

    @property
    def model_title(self) -> str:
        """The model for a table: of a trained one its base, and the run that trained it."""
        if not self.base_model:
            return self.model
        path_parts = self.model.partition(":")[2].split("/")
        names = [part for part in path_parts if part not in ("", "checkpoints", "last")]
        return f"{self.base_model} of {names[-1]}" if names else self.model


class GpuInfo(StoredModel):
    """One GPU of the machine: a card, or a MIG slice of one."""

    index: int
    """Row in the list of GPUs; on a machine without MIG, NVML's index."""
    name: str = ""
    uuid: str = ""
    memory_bytes: int | None = None
    card_index: int | None = None
    """NVML's index of the card, where `index` is another."""
    pci_bus_id: str = ""
    capability: tuple[int, int] | None = None
    """Compute capability, by NVML."""
    parent_uuid: str = ""
    """UUID of the card that this is a MIG slice of; empty: it is a card."""
    usable: bool = True
    """False: MIG is on and has no slice, so CUDA cannot use the card."""

    @property
    def card(self) -> int:
        """NVML's index of the card."""
        return self.index if self.card_index is None else self.card_index


class Environment(StoredModel):
    """Software and machine of a run."""

    versions: dict[str, str] = {}
    python: str = ""
    platform: str = ""
    cpu: str = ""
    cores: int | None = None
    ram_bytes: int | None = None
    device: str = ""
    """Device of the engine, from its first message."""
    threads: int | None = None
    gpus: tuple[GpuInfo, ...] = ()
    """All of the machine."""
    run_gpus: tuple[GpuInfo, ...] = ()
    """Those that the run took, as its engine named them; empty: none, or a record from before."""
    gpu_reason: str = ""
    """Why `gpus` is empty."""
    cuda_visible_devices: str | None = None
    """The variable as the engine had it: "" hides all GPUs; None: not set, or not recorded."""
    driver: str = ""
    nvml_library: str = ""
    nvml_stub: bool = False
    """A stand-in library answered: no GPU figure of this record is a measurement."""
    git_commit: str = ""
    git_dirty: bool | None = None
    hostname: str = ""
    job: str = ""
    """Slurm job of the attempt, `1234_5`; empty: it ran in none."""
    nodes: tuple[str, ...] = ()
    """Nodes that the run computed on, where there were several; only the first was sampled."""


class TimingRecord(StoredModel):
    """Seconds, as defined in docs/measuring.md."""

    end_to_end_seconds: Reading
    time_to_first_step: Reading
    epoch_wall_seconds: Reading
    epoch_stall_seconds: Reading = Reading(reason=NOT_MEASURED_SEPARATELY)
    """Of `epoch_wall_seconds`, what the device waited for data."""
    epoch_steps: int = 0
    epoch_loss_steps: int = 0
    """Steps of the last epoch that `train["epoch_loss"]` is the mean over."""
    timed_steps: int | None = None
    """Steps in the statistics of a step, over all epochs; None: a record from before it was
    told."""
    warmup_steps: int = 0
    step_median: Reading
    step_p95: Reading
    data_wait_share: Reading
    data_stall_share: Reading = Reading(reason=NOT_MEASURED_SEPARATELY)
    """Share of the timed steps in which the device waited for data."""
    samples_per_second: Reading
    samples_per_second_median: Reading
    optimizer_share: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Share of the timed steps that the optimizer took."""
    tokens_per_second: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Of the language model's sequences, without padding."""
    model_flops_per_sample: Reading = Reading(reason=NOT_MEASURED_THEN)
    """FLOPs of a training sample, forward and backward pass."""
    mfu: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Model FLOPs utilization; its method has convention, peak and the revision of their table."""
    hfu: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Hardware FLOPs utilization: with what gradient checkpointing computes again."""
    phases: dict[str, float] = {}
    """Seconds per phase."""


class EpochRecord(StoredModel, EpochFields):
    """A whole epoch of the training."""


class StageRecord(StoredModel, StageFields):
    """A stage of the training. Seconds as in `TimingRecord`."""

    wall_seconds: Reading
    """Start of the stage to its end, validations and checkpoints included."""
    epoch_wall_seconds: Reading
    step_median: Reading
    samples_per_second: Reading


class ForecastRecord(StoredModel):
    """Forecast of the whole run by a cost probe; the record's own timing is what the probe
    measured.
    """

    steps: int
    """Timed steps that it rests on."""
    asked_steps: int = 0
    max_uncertainty: float | None = None
    """Relative half-width of the epoch's interval at which the probe stops."""
    samples: int = 0
    """Training samples that were read."""
    epoch_steps: int = 0
    epoch_seconds: Reading
    """What `epoch_wall_seconds` of the whole run will be."""
    run_steps: int = 0
    run_seconds: Reading
    """Process start to last training step, without evaluation and saving."""
    start_seconds: Reading
    """Measured: process start to the end of the first step."""
    warmup_seconds: float = 0.0
    disk: dict[str, int] = {}
    """Bytes that the whole run keeps on disk, by what they are."""


class MemoryUse(StoredModel):
    """Peaks in bytes."""

    rss_main_peak: Reading
    """VmHWM of the engine's main process: what `/usr/bin/time -v` calls max RSS."""
    rss_tree_peak: Reading
    pss_tree_peak: Reading
    vram_allocated_peak: Reading
    vram_reserved_peak: Reading
    vram_process_peak: Reading
    vram_device_peak: Reading


class EnergyUse(StoredModel):
    """Energy of the run's GPUs (not of the host), by NVML's counter."""

    run: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Joules from the first sample to the last."""
    per_sample: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Joules of a training sample, over the timed steps."""
    power: Reading = Reading(reason=NOT_MEASURED_THEN)
    """Mean watts over the timed steps."""


class MemoryEstimateRecord(StoredModel):
    """Memory estimate made before the run, and the measured peak. Bytes.

    For a GPU tensors are compared with torch's own count. Without one everything is host memory,
    and the whole process is compared with its max RSS.
    """

    gpu: str = ""
    """What it was made for; empty: for the host of a run on a CPU."""
    tensors: dict[str, int] = {}
    """Estimated peak of all tensors, by phase: train, predict."""
    total: dict[str, int] = {}
    """The same with all that comes on top (context, workspace, slack; Python, libraries, files):
    what the GPU or the host must have."""
    measured: Reading
    """Peak over the whole run: of torch's own count, or of the main process (VmHWM)."""
    error: float | None = None
    """Estimate over measured, less 1; null where nothing was measured, or not the whole run in one
    attempt."""

    @property
    def phase(self) -> str:
        """The phase that needs most; empty: none was estimated."""
        return max(self.tensors, key=lambda phase: self.tensors[phase], default="")

    @property
    def expected(self) -> int:
        """Estimate of the quantity that `measured` counts."""
        return (self.tensors if self.gpu else self.total).get(self.phase, 0)

    @property
    def needed(self) -> int:
        """Bytes that the GPU or the host must have."""
        return max(self.total.values(), default=0)


class MetricRecord(StoredModel, MetricFields):
    """One number of quality, with its interval."""


class EvaluationRecord(StoredModel, EvaluationFields):
    """Cost of evaluating on one split, in seconds."""


class ArtifactRecord(StoredModel):
    """A file in the run folder, as announced by its engine."""

    path: str
    """Relative to the run folder."""
    role: str = "checkpoint"
    sha256: str = ""
    size: int = 0


class Exit(StoredModel):
    """Cause of a run's end, with the phase and step at that time."""

    cause: Cause
    code: int | None = None
    signal: int | None = None
    detail: str = ""
    phase: str = ""
    step: int = 0


class RunRecord(StoredModel):
    """One attempt of one run."""

    schema_number: int = Field(default=SCHEMA, alias="schema")
    identity: Identity
    environment: Environment
    timing: TimingRecord
    memory: MemoryUse
    energy: EnergyUse = EnergyUse()
    metrics: tuple[MetricRecord, ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    """One for each split, in the order in which they were evaluated."""
    train: dict[str, float] = {}
    """Numbers of the last logged window of full batches: `loss`, `r@1`, `batch`, …, and the `epoch`
    at which it ended; of the last one at all where none was without a short batch. `epoch_loss`:
    mean over the last epoch."""
    samples: int = 0
    """Training samples of the subset that were loaded."""
    steps: int = 0
    """Optimizer steps done."""
    epochs: float | None = None
    """Epochs done, at whatever step the run ended; None: it trained nothing, or did not tell."""
    planned_steps: int = 0
    training_epochs: tuple[EpochRecord, ...] = ()
    """Whole epochs in order, those of earlier attempts too; none in records from before."""
    stages: tuple[StageRecord, ...] = ()
    """Completed stages in order; none: the training has no stages."""
    parameters: int | None = None
    trainable_parameters: int | None = None
    facts: dict[str, str] = {}
    artifacts: tuple[ArtifactRecord, ...] = ()
    """Files that its engine announced, the last word about each; none in records from before."""
    exit: Exit
    forecast: ForecastRecord | None = None
    """Of a cost probe; None: all numbers of this record are measured."""
    fit: MemoryEstimateRecord | None = None
    """The memory estimate; None: none was made."""
    origins: dict[str, str] = {}
    """Setting -> its source, where that is the environment or a rule."""
    counters: dict[str, float] = {}
    """Everything dropped, skipped or malformed, by name."""
    notices: tuple[str, ...] = ()
    shared_host: tuple[str, ...] = ()
    """What was at work on the host meanwhile: ids of other runs of the suite (lanes), and names of
    other suites of the same user."""
    folder: str = ""
    """The run folder, relative to the log root."""
    started_wall: float | None = None
    ended_wall: float | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        ser_json_inf_nan="strings",
        populate_by_name=True,
        serialize_by_alias=True,
    )

"""Messages of engines and wardens, one class each. Encoding: `engines.protocol`.

Two rules of numbers: a non-finite number (a NaN loss) is written as the string "NaN"/"Infinity";
an unmeasured number is null and has a reason beside it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from engines.gpu_readings import EngineGpu, Gpu
from results.records.measurements import EpochFields, EvaluationFields, MetricFields, StageFields
from results.text.renamed_words import rename_keys, rename_plan_keys

PROTOCOL: Final = 1
"""Checked in `Hello`. Raised when a message loses or changes a field; additions keep the number."""

PhaseName = Literal[
    "import", "build", "cache", "load", "compile", "warmup", "train", "eval", "encode", "search",
    "generate", "save",
]  # fmt: skip

Cause = Literal[
    "completed", "failed", "killed", "oom-cuda", "oom-host", "stopped", "hung", "supervisor-lost",
    "protocol-error", "storage-lost", "skipped", "pruned", "unknown",
]  # fmt: skip
"""How an attempt ended. `skipped`: a person skipped it, or a run that it needs did not complete.
`pruned`: a search did, since trials before it were better at the same point."""


StoredSettings = Annotated[dict[str, Any], BeforeValidator(rename_keys)]
"""A table with settings as keys; files of earlier versions have earlier names."""


class Message(BaseModel):
    """Base of all messages. Unknown fields of a newer engine are kept, not refused."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")

    t: float = 0.0
    """Seconds since the attempt's start on CLOCK_MONOTONIC, which all processes here share."""


class Hello(Message):
    """First message of every engine."""

    kind: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    engine: str
    pid: int
    device: str = ""
    """`cpu`, or the name of the GPU as torch gives it; empty while torch is not loaded yet."""
    threads: int | None = None
    versions: dict[str, str] = {}
    gpus: tuple[EngineGpu, ...] = ()
    """Those that all ranks of the run compute on; empty on a CPU, or not known yet."""


class Phase(Message):
    """A phase begins here; the one before it ends."""

    kind: Literal["phase"] = "phase"
    name: PhaseName
    detail: str = ""


class Plan(Message):
    """Plan of the run, sent before training or evaluation starts."""

    kind: Literal["plan"] = "plan"
    steps: int
    """Optimizer steps in all, warm-up included."""
    samples: int
    """Training samples of the subset that were loaded."""
    epochs: float = 1.0
    warmup_steps: int = 0
    """Steps at the start that are left out of the timing."""
    stop_at: int = 0
    """The last step of a cost probe at the latest; 0: `steps`."""
    effective_batch: int
    micro_batch: int
    parameters: int | None = None
    trainable_parameters: int | None = None
    subset_fingerprint: str = ""
    model_revision: str = ""
    facts: Annotated[dict[str, str], BeforeValidator(rename_keys)] = {}
    """Facts for readers of the record: `layers`: `3,7,11 -> 2,5,8`, precision, …"""


class Step(Message):
    """A window of optimizer steps. Times are seconds of the whole window unless said otherwise."""

    kind: Literal["step"] = "step"
    step: int
    """Optimizer steps done so far, this window included."""
    count: int
    samples: int
    epoch: float = 0.0
    warmup: bool = False
    """True: these steps are left out of every timing."""
    seconds: float
    step_seconds: tuple[float, ...] = ()
    """One duration a step; its sum is `seconds` less what lay between the steps."""
    data_wait: float | None = None
    """Time in which the host waited for its next batch."""
    data_stall: float | None = None
    """Time in which the device was idle for lack of that batch: `data_wait` not hidden by work."""
    transfer: float | None = None
    forward: float | None = None
    backward: float | None = None
    optimizer: float | None = None
    loss: float
    """Mean over the window."""
    lr: float
    grad_norm: float | None = None
    """Mean over the steps that were not skipped; null: all were, or the engine has no norm."""
    skipped_steps: int = 0
    """Steps of `count` in which fp16 gradients overflowed, so that the weights stayed."""
    metrics: dict[str, float] = {}


class Progress(Message):
    """Progress of a phase other than training."""

    kind: Literal["progress"] = "progress"
    done: int
    total: int
    unit: str = "items"


class Metric(Message, MetricFields):
    """One number of quality, with its interval."""

    kind: Literal["metric"] = "metric"


class Evaluation(Message, EvaluationFields):
    """Cost of evaluating one split, in seconds."""

    kind: Literal["evaluation"] = "evaluation"


class Timing(Message):
    """The run's times in seconds, as design.md defines them. Null is unmeasured; see `reasons`."""

    kind: Literal["timing"] = "timing"
    time_to_first_step: float | None = None
    epoch_wall_seconds: float | None = None
    """Wall clock of the timed training steps of the last whole epoch; `epoch_steps` of them."""
    epoch_stall_seconds: float | None = None
    """The data stalls among them: seconds in which the device waited for the next batch."""
    epoch_steps: int = 0
    epoch_loss: float | None = None
    """Mean over the samples of the last epoch, the timing warm-up's too; an epoch that was not
    trained to its end counts as far as it was, one that was resumed within has none."""
    epoch_loss_steps: int = 0
    timed_steps: int = 0
    """Steps that the median and the 95th percentile are of, over all epochs."""
    warmup_steps: int = 0
    step_median: float | None = None
    step_median_low: float | None = None
    step_median_high: float | None = None
    step_p95: float | None = None
    step_p95_low: float | None = None
    step_p95_high: float | None = None
    interval_method: str = ""
    data_wait_share: float | None = None
    data_stall_share: float | None = None
    samples_per_second: float | None = None
    """Sum of samples over sum of seconds."""
    samples_per_second_median: float | None = None
    """Samples of a step over the median step: the two must agree, or the run is flagged."""
    optimizer_share: float | None = None
    """Share of the timed steps that the optimizer took."""
    tokens_per_second: float | None = None
    """Of the language model's sequences, without padding."""
    model_flops_per_sample: float | None = None
    """FLOPs of a training sample, forward and backward pass; see docs/measuring.md."""
    mfu: float | None = None
    """Model FLOPs utilization: the model's FLOPs over the peak of the GPUs in the same time."""
    hfu: float | None = None
    """Hardware FLOPs utilization: with what gradient checkpointing computes again."""
    reasons: dict[str, str] = {}
    methods: dict[str, str] = {}
    """How a number was measured, by its name, where that is not the same in every run."""

    def with_reason(self, reason: str) -> Self:
        """The same, with a reason for every unmeasured number that has none."""
        numbers = [
            name for name, field in type(self).model_fields.items()
            if field.annotation == float | None and not name.endswith(("_low", "_high"))
        ]  # fmt: skip
        unmeasured = [name for name in numbers if getattr(self, name) is None]
        reasons = {**dict.fromkeys(unmeasured, reason), **self.reasons}
        return self.model_copy(update={"reasons": reasons})


class EpochSummary(Message, EpochFields):
    """A whole epoch of the training, sent after its validation; a resumed run sends it again."""

    kind: Literal["epoch"] = "epoch"


class StageSummary(Message, StageFields):
    """A stage of the training, sent at its end; a resumed run sends it again."""

    kind: Literal["stage"] = "stage"
    wall_seconds: float | None = None
    """From the stage's start to its end, validations and checkpoints included; null: the run was
    resumed within the stage."""
    timing: Timing
    """Times of its steps, as for a whole run."""


class Forecast(Message):
    """Cost forecast of the whole run by a cost probe. Seconds; null has a reason in `reasons`."""

    _rename = model_validator(mode="before")(rename_plan_keys)
    kind: Literal["forecast"] = "forecast"
    steps: int
    """Timed steps that it rests on."""
    asked_steps: int
    max_uncertainty: float | None = None
    samples: int = 0
    """Training samples read, those of the warm-up included."""
    epoch_steps: int = 0
    """Steps that `epoch_seconds` is about: those that the whole run's `epoch_wall_seconds` is."""
    epoch_seconds: float | None = None
    epoch_low: float | None = None
    epoch_high: float | None = None
    epoch_measured: bool = False
    """The cost probe trained the whole epoch: `epoch_seconds` is a measurement."""
    run_steps: int = 0
    run_seconds: float | None = None
    """Start of the process to its last training step, as `start_seconds` and all steps add up."""
    run_low: float | None = None
    run_high: float | None = None
    run_measured: bool = False
    start_seconds: float | None = None
    """Start of the process to the end of the first step, measured."""
    warmup_seconds: float = 0.0
    """The other steps of the timing warm-up, measured."""
    method: str = ""
    disk: dict[str, int] = {}
    """Bytes that the whole run keeps on disk, by what they are."""
    reasons: dict[str, str] = {}


class Memory(Message):
    """Peaks in bytes since the phase before; null with a reason when there is no GPU."""

    kind: Literal["memory"] = "memory"
    phase: PhaseName
    vram_allocated_peak: int | None = None
    vram_reserved_peak: int | None = None
    rss_peak: int | None = None
    """VmHWM of the engine's main process so far."""
    reason: str = ""


class Artifact(Message):
    """A file that the run keeps, hashed while it was written."""

    kind: Literal["artifact"] = "artifact"
    path: str
    """Relative to the run folder."""
    sha256: str
    size: int
    role: str = "checkpoint"


class Notice(Message):
    """Notice for the user; counted by code (skipped images, truncated texts, …)."""

    kind: Literal["notice"] = "notice"
    code: str
    text: str
    count: int = 1


class Oom(Message):
    """The device ran out of memory; `before` and `after` are micro-batch sizes."""

    kind: Literal["oom"] = "oom"
    step: int
    before: int
    after: int
    params: StoredSettings = {}
    """Settings that the next attempt has instead of the spec's; empty: there is none."""


class Done(Message):
    """Last message of an engine that finished its work."""

    kind: Literal["done"] = "done"
    dropped: int = 0
    """Metric messages that the emitter dropped because the pipe was full."""
    rss_peak: int | None = None
    """VmHWM of the engine at its end, bytes: a short run ends before it is ever sampled."""


class Failed(Message):
    """Last message of an engine that failed."""

    kind: Literal["failed"] = "failed"
    error: str
    """One sentence for the user."""
    hint: Literal["failed", "oom-cuda", "oom-host", "stopped", "usage"] = "failed"
    traceback: str = ""
    rss_peak: int | None = None
    """As in `Done`."""


class Attempt(Message):
    """The warden started the engine (source `warden`)."""

    kind: Literal["attempt"] = "attempt"
    number: int
    pid: int
    environment: dict[str, Any] = {}
    """Machine, GPUs, driver, NVML library and whether it is a stub: see results.records.schema."""


class Sample(Message):
    """Telemetry of the machine at one moment (source `warden`). Bytes, percent of one core."""

    kind: Literal["sample"] = "sample"
    rss_main: int | None = None
    rss_main_peak: int | None = None
    """VmHWM of the engine's main process."""
    rss_tree: int | None = None
    pss_tree: int | None = None
    cpu_percent: float | None = None
    processes: int = 0
    gpus: tuple[Gpu, ...] = ()
    gpu_reason: str = ""
    """Why `gpus` is empty."""


class End(Message):
    """The attempt is over (source `warden`): nothing of it runs any more."""

    kind: Literal["end"] = "end"
    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    """One sentence for the user."""
    killed: tuple[int, ...] = ()
    """Pids that had to be killed."""
    survivors: tuple[int, ...] = ()
    """Pids that could not be killed."""
    need: str = ""
    """Cause `skipped`: the run whose end was the reason; empty: a person skipped this one."""
    counters: dict[str, float] = {}
    """Everything dropped, malformed or oversize, by name; CPU seconds of the observers too."""
    shared_host: tuple[str, ...] = ()
    """What was at work on the same host meanwhile: other runs of the suite by id, other suites of
    the user by name."""


class Unknown(Message):
    """A message of a kind that this version does not know. Kept raw and counted."""

    kind: str

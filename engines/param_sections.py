"""Shared settings of the engines that train, one class for each section of a form.

An engine's `Params` inherits its sections in reverse order, since pydantic lists the fields of the
last base first. An engine overrides a default in one line, with the limits and the description of
the type here. Imports no torch.
"""

from __future__ import annotations

import os
from typing import Annotated, ClassVar, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from engines.monitor_condition import parse_conditions
from results.text import renamed_words

Batch = Annotated[int, Field(ge=1, le=65_536, description="Records in a micro-batch")]
Accumulation = Annotated[int, Field(ge=1, le=1024, description="Micro-batches in a step")]
LearningRate = Annotated[float, Field(gt=0, lt=1, description="Peak learning rate")]
Beta2 = Annotated[float, Field(gt=0, lt=1, description="Second-moment decay of AdamW")]
Precision = Annotated[
    Literal["auto", "bf16", "fp16", "fp32"],
    Field(
        description="Autocast type, fp16 with gradient scaling; auto: bf16 where the GPU or CPU "
        "has it in hardware, else fp16 on a GPU and fp32 on a CPU"
    ),
]
EvaluateOn = Annotated[
    tuple[str, ...] | None,
    Field(description="Subsets to evaluate on; unset: what the recipe names; []: none"),
]
GradientCheckpointing = Annotated[
    bool, Field(description="Recompute activations in the backward pass (non-reentrant)")
]
LORA_TARGETS: Final = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip
"""The linear layers of a decoder block, as Llama, Qwen and their like name them."""
MAX_AUTO_WORKERS: Final = 8
"""A batch of 64 pictures of 224 px takes 12 ms of one core: 8 threads deliver over 600 a second."""


def _union_tag(value: object) -> str:
    """Tag of the union member of a value: `auto`, or any other value."""
    return "<auto>" if value == "auto" else "<value>"


Auto = Annotated[Literal["auto"], Tag("<auto>")]
Workers = Annotated[
    Annotated[int, Field(ge=0, le=64), Tag("<value>")] | Auto, Discriminator(_union_tag)
]
AutoBool = Annotated[Annotated[bool, Tag("<value>")] | Auto, Discriminator(_union_tag)]
Patience = Annotated[
    int, Field(ge=1, description="Validations without improvement before training stops")
]
MinDelta = Annotated[
    float,
    Field(ge=0, description="Smallest difference that counts as improvement, in the metric's unit"),
]
TimingWarmup = Annotated[int, Field(ge=0, description="Steps at the start left out of the timing")]


class Settings(BaseModel):
    """Base of sections of settings."""

    RENAMED: ClassVar = renamed_words.SETTINGS
    """Earlier names, for suggestions beside an unknown one."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Data(Settings):
    """Folders of subsets and media, and the base of a trained model."""

    data_root: str | None = Field(
        None,
        description="Folder with the data of subsets that do not ship; empty: the local hub cache",
    )
    image_root: str | None = Field(
        None, description="Folder of the pictures and videos; empty: images/ under data_root"
    )
    base_model: str = Field(
        "",
        description="With a trained model (run: or path:): the model that it was trained from, "
        "where that lies elsewhere on this machine: a name, path:/abs/dir or hub:org/name",
    )


class LanguageModel(Settings):
    """Quantization and LoRA of a language model."""

    quantize: Literal["nf4", "none"] = Field(
        "nf4", description="Weights of the language model: 4-bit NF4 (bitsandbytes), or whole"
    )
    double_quant: bool = Field(True, description="Quantize the scales of 4-bit weights as well")
    lora_rank: int = Field(16, ge=1, le=1024, description="Rank of LoRA")
    lora_alpha: int = Field(
        32, ge=1, le=4096, description="Scale of LoRA: lora_alpha / lora_rank times B A"
    )
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before LoRA")
    lora_targets: tuple[str, ...] = Field(
        LORA_TARGETS,
        description="Linear layers of the language model that get LoRA, by the ends of their names",
    )


class Duration(Settings):
    """Length of the training, and batch size."""

    epochs: float = Field(1.0, gt=0, le=10_000, description="Passes over the subset")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimizer steps; empty: by epochs"
    )
    batch: Batch = 16
    gradient_accumulation_steps: Accumulation = 1


class Optimization(Settings):
    """AdamW, warm-up and gradient clipping."""

    lr: LearningRate = 1e-4
    weight_decay: float = Field(0.01, ge=0, lt=1, description="Decay of weight matrices")
    beta2: Beta2 = 0.999
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of steps that warm up the rate")
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps that warm up the rate; empty: by warmup_ratio"
    )
    max_grad_norm: float = Field(1.0, ge=0, description="Largest gradient norm; 0: no clipping")


class Monitoring(Settings):
    """Validation between epochs, early stopping and best weights.

    An engine adds `monitor`, one of the metrics of its validations.
    """

    validate_every_epochs: int = Field(
        1, ge=0, description="Epochs between validations; 0: only at the end"
    )
    early_stopping: bool = Field(
        False, description="Stop when the monitored validation metric stops improving"
    )
    patience: Patience = 1
    min_delta: MinDelta = 0.0
    load_best: AutoBool = Field(
        "auto",
        description="Replace the last weights by those that were best by `monitor`; auto: with "
        "early_stopping",
    )
    monitor_where: str = Field(
        "",
        max_length=200,
        description="Condition that an epoch fulfils to be the best, such as `diversity > 0.5`; "
        "several are joined by `and`; empty: none",
    )

    @model_validator(mode="after")
    def _check_monitoring(self) -> Self:
        metrics = get_args(type(self).model_fields["monitor"].annotation)
        parse_conditions(self.monitor_where, metrics)
        if (self.early_stopping or self.load_best is True) and not self.validate_every_epochs:
            setting = "early_stopping" if self.early_stopping else "load_best"
            raise ValueError(f"{setting} needs validations; set validate_every_epochs to 1 or more")
        return self


class Distributed(Settings):
    """Data parallel training."""

    nproc_per_node: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes on each machine that train one model together, a GPU each; `batch` "
        "is per process",
    )
    nnodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Machines that train one model together, `nproc_per_node` processes on each; "
        "above 1 only in a job of Slurm (`workbench submit`)",
    )


class Runtime(Settings):
    """Precision, threads and input pipeline."""

    precision: Precision = "auto"
    tf32: bool = Field(
        True,
        description="TF32 for fp32 matrix products on the GPU, but not in a search",
    )
    fused: bool = Field(True, description="Fused AdamW")
    compile: bool = Field(False, description="torch.compile the towers")
    num_workers: Workers = Field(
        "auto",
        description="Threads that prepare batches ahead; 0: between the steps; auto: one per core, "
        f"at most {MAX_AUTO_WORKERS}, on a GPU, and 0 on a CPU",
    )
    pin_memory: AutoBool = Field(
        "auto",
        description="Batches in pinned memory, copied to the GPU while it computes; auto: on a GPU",
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of torch; 0: torch's choice")


class Checkpoints(Settings):
    """Timing warm-up, checkpoints and saved weights."""

    timing_warmup_steps: TimingWarmup = 5
    checkpoint_every: int = Field(
        0, ge=0, description="Steps between checkpoints; 0: by checkpoint_minutes only"
    )
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Minutes of training between checkpoints; 0: none by the clock"
    )
    save_model: bool = Field(True, description="Keep the trained weights at the end")
    export_model: bool = Field(
        True,
        description="With save_model: write the weights also in the layout of other libraries: "
        "adapters for PEFT, or an encoder for from_pretrained",
    )


def effective_workers(num_workers: int | str, *, gpu: bool, ranks: int = 1) -> int:
    """Loader threads of one process; `auto` is 0 on a CPU, where they would take its cores."""
    if num_workers != "auto":
        return int(num_workers)
    if not gpu:
        return 0
    return max(1, min(MAX_AUTO_WORKERS, len(os.sched_getaffinity(0)) // ranks))


def effective_pin_memory(pin_memory: bool | str, *, gpu: bool) -> bool:
    """Whether batches lie in pinned memory; `auto`: on a GPU. Never without a GPU."""
    return gpu and pin_memory in (True, "auto")

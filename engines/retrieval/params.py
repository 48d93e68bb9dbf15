"""Settings of the retrieval engine, for plans, help texts and forms; imports no torch."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from engines import param_sections

ARCHITECTURE_PARAMS: Final = (
    "image_size", "max_length", "layers", "text_layers", "vision_layers", "temperature",
    "use_instruction", "layer_fusion", "scoring", "fusion_width", "fusion_queries", "late_width",
    "loss",
)  # fmt: skip
"""Settings that a trained model fixes; all others are those of the run."""

Modality = Literal["both", "text", "image", "shuffled"]


class _Objective(param_sections.Settings):
    """Settings of the training objective."""

    temperature: float = Field(0.07, gt=0, le=1, description="First value of the learned one")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of averaged weights for evaluation; 0: none"
    )
    modality_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of training queries that lose one of two modalities"
    )


class _Inputs(param_sections.Settings):
    """Settings of the inputs and of the layers that are read."""

    image_size: int = Field(224, ge=16, le=1024, description="Side of the square image, pixels")
    max_length: int = Field(77, ge=4, le=512, description="Longest text, tokens; the rest is cut")
    use_instruction: bool = Field(True, description="Put the record's instruction before questions")
    layers: tuple[int, ...] = Field(
        (),
        description="Blocks whose features are averaged, from 0, on a scale of 12 blocks (or of "
        "the deepest tower); empty: the towers' own output",
    )
    text_layers: tuple[int, ...] = Field(
        (), description="Blocks of the text tower, from 0, exactly; wins over layers"
    )
    vision_layers: tuple[int, ...] = Field(
        (), description="Blocks of the vision tower, from 0, exactly; wins over layers"
    )


class _Vectors(param_sections.Settings):
    """Settings of the vectors and their comparison."""

    layer_fusion: Literal["mean", "recurrent"] = Field(
        "mean", description="What becomes of the layers: their mean, or ReT's recurrent gated cell"
    )
    scoring: Literal["pooled", "late"] = Field(
        "pooled", description="Compare one vector per item, or all tokens (late: MaxSim)"
    )
    fusion_width: int = Field(1024, ge=16, le=8192, description="Width of the recurrent cell")
    fusion_queries: int = Field(32, ge=1, le=1024, description="Query tokens of the recurrent cell")
    late_width: int = Field(
        128, ge=1, le=8192, description="Width of the vectors that the recurrent cell gives"
    )
    freeze_towers: bool = Field(
        False, description="Train only the recurrent cell; the towers keep their weights"
    )
    loss: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="In-batch softmax as CLIP, or pairwise sigmoid as SigLIP"
    )
    grad_cache_chunk: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Items computed at once in training; 0: the whole batch. Exact gradients in "
        "the memory of a chunk, at the price of a second forward pass",
    )


class _Evaluation(param_sections.Settings):
    """Settings of search and metrics."""

    evaluate_on: param_sections.EvaluateOn = None
    evaluate_modalities: tuple[Modality, ...] = Field(
        ("both", "text", "image"),
        description="Query ablations: both, text only, image only, shuffled (with the images of "
        "other queries)",
    )
    eval_batch_size: int = Field(256, ge=1, description="Texts or images encoded at once")
    pseudo_recall: bool = Field(True, description="Also count passages that contain an answer")
    search: Literal["exact", "faiss-flat", "faiss-ivf"] = Field(
        "exact",
        description="How the corpus is searched; faiss-ivf is approximate (extra retrieval)",
    )
    search_depth: int = Field(
        500, ge=10, le=10_000, description="Passages ranked for each query; metrics go no deeper"
    )
    search_precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Of passage vectors in exact search; scores are summed in fp32"
    )
    search_probes: int = Field(32, ge=1, description="Lists that faiss-ivf looks into for a query")
    corpus_memory_gib: float = Field(
        16.0, gt=0, description="Passage vectors larger than this lie in a file of the run folder"
    )


class _Runtime(param_sections.Runtime):
    """Precision, threads, input pipeline and compilation."""

    mixed_precision: Literal["autocast", "master_weights"] = Field(
        "autocast",
        description="With bf16: autocast converts weights and activations as operations need them; "
        "master_weights computes with a bf16 copy of the model and optimizes float32 weights",
    )
    cuda_graphs: bool = Field(
        False, description="With compile: each shape is one CUDA graph; needs batches of few shapes"
    )


class Params(
    _Evaluation, param_sections.Checkpoints, _Runtime, param_sections.Distributed, _Vectors,
    _Inputs, _Objective, param_sections.Optimization, param_sections.Duration, param_sections.Data,
):  # fmt: skip
    """All settings of a retrieval run."""

    image_root: str | None = Field(
        None,
        description="Folder of the pictures, or one for each data set: oven=/a,evqa=/b,/others; "
        "empty: images/ under data_root",
    )
    batch: param_sections.Batch = Field(64, description="Pairs in a micro-batch; negatives too")
    gradient_accumulation_steps: param_sections.Accumulation = Field(
        1, description="Micro-batches in a step; negatives stay within each"
    )
    lr: param_sections.LearningRate = 2e-5
    beta2: param_sections.Beta2 = 0.98
    timing_warmup_steps: param_sections.TimingWarmup = 20

"""Every setting of the retrieval engine. Feeds plans, help texts and forms; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Modality = Literal["both", "text", "image"]


class Params(BaseModel):
    """Settings of one retrieval run."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    data_root: str | None = Field(
        None,
        description="Folder with the data of subsets that do not ship; empty: the local hub cache",
    )
    image_root: str | None = Field(
        None,
        description="Folder of the pictures, or one for each data set: oven=/a,evqa=/b,/others; "
        "empty: images/ under data_root",
    )

    # What is trained, for how long
    epochs: float = Field(1.0, gt=0, le=10_000, description="Passes over the subset")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimizer steps; empty: by epochs"
    )
    batch: int = Field(64, ge=1, le=65_536, description="Pairs in a micro-batch; negatives too")
    accumulation: int = Field(
        1, ge=1, le=1024, description="Micro-batches in a step; negatives stay within each"
    )

    # How
    lr: float = Field(2e-5, gt=0, lt=1, description="Peak learning rate")
    weight_decay: float = Field(0.01, ge=0, lt=1, description="Decay of weight matrices")
    beta2: float = Field(0.98, gt=0, lt=1, description="Second-moment decay of AdamW")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of steps that warm up the rate")
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps that warm up the rate; empty: by warmup_ratio"
    )
    clip_norm: float = Field(1.0, ge=0, description="Largest gradient norm; 0: no clipping")
    temperature: float = Field(0.07, gt=0, le=1, description="First value of the learned one")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of averaged weights for evaluation; 0: none"
    )
    modality_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of training queries that lose one of two modalities"
    )

    # What the model sees
    image_size: int = Field(224, ge=16, le=1024, description="Side of the square image, pixels")
    max_tokens: int = Field(77, ge=4, le=512, description="Longest text, tokens; the rest is cut")
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

    # How vectors are made and compared
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

    # The machine
    nproc_per_node: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes on this machine that train one model together, a GPU each; `batch` "
        "is per process, negatives are gathered",
    )
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        "bf16", description="Autocast type; fp16 with gradient scaling"
    )
    tf32: bool = Field(True, description="TF32 for fp32 matrix products on the GPU")
    fused: bool = Field(True, description="Fused AdamW")
    compile: bool = Field(False, description="torch.compile the towers")
    workers: int = Field(
        0, ge=0, le=64, description="Threads that prepare batches ahead; 0: between the steps"
    )
    pin_memory: bool = Field(False, description="Page-locked batches for faster copies to the GPU")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of torch; 0: torch's choice")

    # Measuring and keeping
    timing_warmup_steps: int = Field(
        20, ge=0, description="Steps at the start left out of the timing"
    )
    checkpoint_every: int = Field(
        0, ge=0, description="Steps between checkpoints; 0: by checkpoint_minutes only"
    )
    checkpoint_minutes: float = Field(
        10.0,
        ge=0,
        description="Minutes of training between checkpoints; 0: none by the clock",
    )
    save_model: bool = Field(True, description="Keep the trained weights at the end")

    # Evaluation
    evaluate_on: tuple[str, ...] | None = Field(
        None, description="Subsets to evaluate on; empty: what the recipe names"
    )
    evaluate_modalities: tuple[Modality, ...] = Field(
        ("both", "text", "image"), description="Query ablations: both, text only, image only"
    )
    evaluate_batch: int = Field(256, ge=1, description="Texts or images encoded at once")
    pseudo_recall: bool = Field(True, description="Also count passages that contain an answer")
    search: Literal["exact", "faiss-flat", "faiss-ivf"] = Field(
        "exact", description="How the corpus is searched; faiss-ivf is approximate (extra `faiss`)"
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

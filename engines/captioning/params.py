"""Settings of the captioning engine, for plans, help texts and forms. Imports no torch."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from engines import param_sections
from engines.captioning.stages import ALL_PARTS, CaptionStage, TrainedParts

ARCHITECTURE_PARAMS: Final = (
    "vision", "vision_layer", "cls", "llm", "prompt", "projector", "projector_hidden",
    "projector_depth", "projector_tokens", "projector_heads", "projector_head_width",
    "projector_readout", "quantize", "double_quant", "lora_rank", "lora_alpha", "lora_targets",
    "frames", "feature_dtype", "use_dora",
)  # fmt: skip
"""Settings that are read from the trained model; all others are those of the run."""
OF_THE_WHOLE: Final = {"stages", "evaluate_last"}
"""Settings of a training that its stages do not have."""


class _CaptionModel(param_sections.Settings):
    """Vision tower, projector and language model."""

    vision: str = Field(
        "",
        description="Vision tower: path:/abs/dir or hub:org/name; empty: that of the model's entry",
    )
    vision_layer: Literal[-1, -2] = Field(
        -1, description="Whose features are read: -1 the last layer's, -2 those of the one before"
    )
    cls: bool = Field(False, description="Keep the class token beside the patches")
    llm: str = Field(
        "",
        description="Language model: path:/abs/dir or hub:org/name; empty: that of the entry",
    )
    prompt: str = Field("", description="What the language model is told beside the picture")
    projector: Literal[
        "linear", "mlp2x", "c_abstractor", "perceiver", "cross_attention", "qformer"
    ] = Field("linear", description="What turns vision features into tokens of the language model")
    projector_hidden: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Inner width, of cross_attention and qformer that of the feed-forward network; "
        "0: the kind's own",
    )
    projector_depth: int = Field(0, ge=0, le=64, description="Blocks; 0: the kind's own")
    projector_tokens: int = Field(
        0,
        ge=0,
        le=4096,
        description="Tokens of a frame (c_abstractor) or of all frames; 0: the kind's own",
    )
    projector_heads: int = Field(
        8, ge=1, le=256, description="Attention heads of perceiver, cross_attention and qformer"
    )
    projector_head_width: int = Field(
        64, ge=1, le=1024, description="Width of a head of the perceiver"
    )
    projector_readout: int = Field(2, ge=1, le=8, description="Last linear layers of c_abstractor")


class _CaptionLanguageModel(param_sections.LanguageModel):
    """Quantization, LoRA and base texts of the language model."""

    lora_rank: int = Field(16, ge=0, le=1024, description="Rank of LoRA; 0: train the projector")
    use_dora: bool = Field(
        False, description="DoRA: LoRA with a trained magnitude of each output of a layer"
    )
    base_texts: tuple[str, ...] = Field(
        (),
        description="Subsets whose captions a language model from scratch reads first, as text; "
        "the run's own subset is always among them",
    )


class _Media(param_sections.Settings):
    """How many frames of a medium and tokens of its caption are used."""

    frames: int = Field(8, ge=1, le=256, description="Frames of a video, evenly spaced")
    max_length: int = Field(64, ge=4, le=4096, description="Longest caption, tokens; rest is cut")


class _Schedule(param_sections.Settings):
    """Learning rate of the projector, schedule, and the validation data."""

    projector_lr: float | None = Field(
        None, gt=0, lt=1, description="Peak learning rate of the projector; empty: lr"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Of the learning rate after its warm-up"
    )
    validate_on: str = Field(
        "",
        description="Subset that is validated on between epochs; empty: validation_share of the "
        "own subset",
    )
    validation_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Media held out of training for the validation between epochs; only with "
        "early_stopping or load_best, and without validate_on",
    )


class _CaptionMonitoring(param_sections.Monitoring):
    """The metric of the validation between epochs, for early stopping and the best weights."""

    monitor: Literal["loss", "diversity", "siglip", "meteor", "cider"] = Field(
        "loss",
        description="Validation metric that early_stopping and load_best go by; siglip: the "
        "judge's mean probability (of a CLIP or the local scorer: its mean cosine)",
    )
    patience: param_sections.Patience = 3
    min_delta: param_sections.MinDelta = 0.001


class _Towers(param_sections.Settings):
    """Feature cache, vision batch and gradient checkpointing."""

    feature_cache: bool = Field(True, description="Compute vision features once and keep them")
    feature_dtype: Literal["float16", "float32"] = Field(
        "float16", description="Vision features are rounded to this, kept or not"
    )
    vision_batch: int = Field(32, ge=1, le=4096, description="Frames in the vision tower at once")
    gradient_checkpointing: param_sections.GradientCheckpointing = False


ScorerName = Literal["meteor", "overlap", "cider", "siglip", "bertscore"]
"""Scores of captions; the modules of those that compare texts are in `TEXT_SCORERS`."""


class _CaptionEvaluation(param_sections.Settings):
    """Evaluation data, generation and scorers."""

    evaluate_on: param_sections.EvaluateOn = None
    evaluate_train: int = Field(
        256, ge=0, description="Training media that are evaluated too, spread evenly; 0: none"
    )
    evaluate_limit: int = Field(
        0, ge=0, description="Media of a subset that are evaluated, spread evenly; 0: all"
    )
    evaluate_last: bool = Field(
        False,
        description="Evaluate the weights of the last epoch too, where load_best replaces them: "
        "the same metrics, named [last epoch], for the time of a second evaluation",
    )
    eval_batch_size: int = Field(64, ge=1, description="Captions generated at once")
    evaluate_sample: int = Field(64, ge=2, description="Media that are captioned in a validation")
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Longest generated caption, tokens")
    repetition_penalty: float = Field(
        1.0,
        ge=1,
        le=10,
        description="Divides the logits of tokens that the caption has already; 1: none",
    )
    merge_lora: bool = Field(
        False,
        description="Add LoRA to the weights before the evaluation at the end; 4-bit layers become "
        "whole ones, which are faster and take up to four times their memory",
    )
    scorers: tuple[ScorerName, ...] = Field(
        ("meteor", "overlap", "cider", "siglip", "bertscore"),
        description="Scores of captions beside diversity; overlap: BLEU and chrF; bertscore: with "
        "bert_score",
    )
    bert_score: str = Field(
        "",
        description="Text encoder of BERTScore: path:/abs/dir or hub:org/name of a BERT or the "
        "like; empty: none",
    )
    bert_score_layer: int = Field(
        0,
        ge=0,
        le=100,
        description="Layer whose vectors BERTScore compares, from 1; 0: that of the package "
        "bert-score",
    )
    siglip: str = Field(
        "",
        description="Judge of picture and caption: path:/abs/dir or hub:org/name of a CLIP or "
        "SigLIP; empty: a local scorer where there is one, named in the metric",
    )


class Params(
    _CaptionEvaluation, param_sections.Checkpoints, param_sections.Runtime,
    param_sections.Distributed, _Towers, _CaptionMonitoring, _Schedule,
    param_sections.Optimization, param_sections.Duration, _Media,
    _CaptionLanguageModel, _CaptionModel, param_sections.Data,
):  # fmt: skip
    """Settings of one captioning run."""

    trainable: TrainedParts = ALL_PARTS
    stages: tuple[CaptionStage, ...] = Field(
        (),
        description="Stages of the training, one after the other ([[stage]] in a plan), each with "
        "its own trainable, lr, epochs, schedule, batch, patience; empty: one",
    )
    batch: param_sections.Batch = Field(16, description="Media in a micro-batch")
    gradient_accumulation_steps: param_sections.Accumulation = 2
    compile: bool = Field(False, description="torch.compile projector and vision tower")

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """The parts of `trainable` that the model has."""
        return tuple(part for part in self.trainable if part != "lora" or self.lora_rank)

    @property
    def parts_of_stages(self) -> set[str]:
        """The parts that any stage trains."""
        return {part for stage in self.stage_params() for part in stage.trained_parts}

    def stage_params(self) -> tuple[Self, ...]:
        """The settings of each stage in order; of a training without stages its own."""
        if not self.stages:
            return (self,)
        settings = self.model_dump(exclude=OF_THE_WHOLE)
        return tuple(
            type(self).model_validate({**settings, **stage.settings}) for stage in self.stages
        )

    @model_validator(mode="after")
    def _every_stage_trains(self) -> Self:
        for number, stage in enumerate(self.stages, 1):
            try:
                type(self).model_validate(
                    {**self.model_dump(exclude=OF_THE_WHOLE), **stage.settings}
                )
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
                name = f"stage {number} ({stage.name})" if stage.name else f"stage {number}"
                raise ValueError(f"{name}: {reason}") from None
        if not self.stages and not self.trained_parts:
            raise ValueError(
                "nothing is trained: name projector or lora in trainable, and lora with a lora_rank"
            )
        return self

    @model_validator(mode="after")
    def _last_weights_are_others(self) -> Self:
        last = self.stage_params()[-1]
        loads_best = last.early_stopping if last.load_best == "auto" else last.load_best
        if self.evaluate_last and not loads_best:
            raise ValueError(
                "evaluate_last needs load_best or early_stopping (in the last stage): without them "
                "the last weights are those that are evaluated"
            )
        return self

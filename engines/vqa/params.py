"""Settings of the VQA engine, for plans, help texts and forms. Imports no torch."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from engines import param_sections

ARCHITECTURE_PARAMS: Final = (
    "long_side", "min_pixels", "max_pixels", "prompt", "prompts", "quantize", "double_quant",
    "lora_rank", "lora_alpha", "lora_targets",
)  # fmt: skip
"""Settings that are read from the trained model; all others are those of the run."""


class _Picture(param_sections.Settings):
    """Size of pictures, prompt and length of questions."""

    long_side: int = Field(
        384,
        ge=0,
        le=4096,
        description="Longer side of a picture, pixels, rounded to whole tokens; 0: as it is, "
        "within min_pixels and max_pixels",
    )
    min_pixels: int = Field(3136, ge=784, description="Fewest pixels of a picture, in all")
    max_pixels: int = Field(1_003_520, ge=784, description="Most pixels of a picture, in all")
    prompt: str = Field(
        "Answer with the letter of the right option.",
        description="What stands below the question and its options",
    )
    prompts: tuple[str, ...] = Field(
        (),
        description="Prompts by type of question, each `type: prompt`, in the place of `prompt`",
    )
    max_length: int = Field(
        1024, ge=16, le=131_072, description="Most tokens of a question with its picture"
    )


class _LanguageModel(param_sections.LanguageModel):
    """Quantization, LoRA, gradient checkpointing, feature cache and base."""

    gradient_checkpointing: param_sections.GradientCheckpointing = True
    feature_cache: bool = Field(
        True,
        description="Compute the vision tower's features once and keep them, where the kind of "
        "model and the disk allow it",
    )
    base_on: str = Field(
        "",
        description="Subset that a model from scratch learns first, with all its parameters; none "
        "of its pictures may be among the run's own",
    )


class _HeldOut(param_sections.Settings):
    """Sampled rows, folds, and validation on held-out rows."""

    sample: int = Field(
        0,
        ge=0,
        description="Rows of the subset that are drawn, stratified by answer, before any is held "
        "out; 0: all",
    )
    folds: int = Field(
        0, ge=0, le=100, description="Folds of the subset; 0: validation_share is held out instead"
    )
    fold: int = Field(0, ge=0, le=99, description="The fold that is held out, from 0")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Rows held out of training, stratified; only without folds"
    )
    validate_limit: int = Field(
        256, ge=0, description="Held-out rows of a validation, stratified; 0: all"
    )


class _Monitoring(param_sections.Monitoring):
    """The metric of the validation between epochs, for early stopping and the best weights."""

    monitor: Literal["loss", "accuracy"] = Field(
        "loss",
        description="Metric of the held-out rows that early_stopping and load_best go by: loss "
        "(nats of the right letter) or accuracy",
    )


class _Averages(param_sections.Settings):
    """Weight averages, and augmentation of training questions."""

    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of the moving average of the trained weights; 0: none"
    )
    swa: bool = Field(
        False,
        description="Answer with the mean of the weights of the last steps, not with the moving "
        "average",
    )
    swa_start: float = Field(
        0.75, ge=0, lt=1, description="Share of the steps after which the mean begins"
    )
    shuffle_choices: bool = Field(
        True, description="Show the options of a question in another order in every epoch"
    )
    paraphrases: str = Field(
        "",
        description="CSV or JSON lines with other wordings of training questions, of which one is "
        "drawn in every epoch; empty: none",
    )
    deterministic: bool = Field(
        False, description="Only kernels with equal results every time; slower on a GPU"
    )


class _Answers(param_sections.Settings):
    """Subsets that are answered after training, and inference options."""

    evaluate_on: param_sections.EvaluateOn = None
    evaluate_limit: int = Field(
        0, ge=0, description="Rows of a subset that are evaluated, stratified; 0: all"
    )
    infer_on: str = Field(
        "", description="Subset all of whose rows are answered for a submission; empty: none"
    )
    sample_submission: str = Field(
        "", description="Path of sample_submission.csv, whose form and ids a submission has"
    )
    submission_file: str = Field(
        "submission.csv",
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.csv$",
        description="Name of the submission in the run's folder, with the ending .csv; one fold of "
        "several, whose ensemble has this name, writes submission.csv",
    )
    eval_batch_size: int = Field(6, ge=1, le=4096, description="Questions answered at once")
    tta_scales: tuple[float, ...] = Field(
        (), description="Scales of the picture's sides that answers are averaged over, beside 1.0"
    )
    tta_options: bool = Field(
        False, description="Average over the four rotations of the options too"
    )
    letter_forms: bool = Field(
        False,
        description="Sum the probability of a letter over the tokens that write it (a, A, with a "
        "blank before), not of the trained one alone",
    )
    blank: bool = Field(
        True, description="Ask once more with blank pictures: what is known without looking"
    )
    shuffled: bool = Field(
        False,
        description="Ask once more with the picture of another question: whether it is looked at",
    )
    written: int = Field(
        64, ge=0, description="Questions that are answered in writing too, as a check; 0: none"
    )
    max_new_tokens: int = Field(16, ge=1, le=4096, description="Longest written answer, tokens")
    ensemble: Literal["majority", "probability", "fold-weighted", "stacked"] = Field(
        "probability", description="How an ensemble makes one answer of its folds'"
    )
    temperature_scaling: bool = Field(
        False,
        description="Divide the logits of each fold by a temperature that is fitted on its "
        "held-out rows, before an ensemble combines the folds",
    )


class Params(
    _Answers, param_sections.Checkpoints, param_sections.Runtime, param_sections.Distributed,
    _Averages, param_sections.Optimization, param_sections.Duration, _Monitoring, _HeldOut,
    _LanguageModel, _Picture, param_sections.Data,
):  # fmt: skip
    """Settings of one VQA run."""

    batch: param_sections.Batch = Field(1, description="Questions in a micro-batch")
    gradient_accumulation_steps: param_sections.Accumulation = 4
    compile: bool = Field(False, description="torch.compile the whole model")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.folds == 1:
            raise ValueError("folds = 1 leaves nothing to train on; take 0, or 2 or more")
        if self.folds and self.fold >= self.folds:
            raise ValueError(f"fold = {self.fold}: there are folds 0 to {self.folds - 1}")
        if self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels is more than max_pixels")
        if len(self.prompts_by_kind()) < len(self.prompts):
            raise ValueError("prompts: each is `type: prompt`, and a type occurs once")
        if any(not 0.25 <= scale <= 4 for scale in self.tta_scales):
            raise ValueError("tta_scales: a scale lies between 0.25 and 4")
        return self

    def prompts_by_kind(self) -> dict[str, str]:
        """`prompts` as prompts by type of question; those without type or prompt are left out."""
        parts = [[part.strip() for part in text.split(":", 1)] for text in self.prompts]
        return {pair[0]: pair[1] for pair in parts if len(pair) == 2 and all(pair)}

"""The other loops of train_loop.py: Hugging Face Trainer and sentence-transformers.

Both get the set-up that their own examples show, with what makes them faster here: tokenized once
where the library allows it, fused AdamW, padding to the longest, loader workers.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms
from transformers import CLIPModel, Trainer, TrainerCallback, TrainingArguments

from engines.torchkit.modeling import image_normalization

logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Work:
    """What every contender does: the same pairs, batch, steps and weights."""

    folder: Path
    """A CLIP folder with weights, tokenizer and processor."""
    pictures: list[Path]
    texts: list[str]
    tokens: list[list[int]]
    batch: int
    steps: int
    lr: float
    image_size: int
    precision: str
    workers: int
    cpu: bool


Tick = Callable[[int], None]
"""Called with the number of steps done, at the end of each."""


class Ticks(TrainerCallback):
    """Passes step ends on."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - its interface
        self.tick(state.global_step)


class Pairs(Dataset):
    """Decodes, resizes and normalizes in `__getitem__`, as run_clip.py does."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.transform = transforms.Compose(
            [
                transforms.Resize(
                    work.image_size, interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.CenterCrop(work.image_size),
                transforms.ToTensor(),
                transforms.Normalize(*image_normalization.CLIP),
            ]
        )

    def __len__(self) -> int:
        return len(self.work.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self.work.pictures[index]) as image:
            pixels = self.transform(image.convert("RGB"))
        return {"pixel_values": pixels, "input_ids": self.work.tokens[index]}


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack pictures, pad texts to the longest."""
    ids = [torch.tensor(item["input_ids"]) for item in items]
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        "input_ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "return_loss": True,
    }


def arguments(kind: type, work: Work, folder: str) -> Any:
    """Equal settings for both trainers."""
    return kind(
        output_dir=folder,
        max_steps=work.steps,
        per_device_train_batch_size=work.batch,
        learning_rate=work.lr,
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        bf16=work.precision == "bf16",
        dataloader_num_workers=work.workers,
        dataloader_persistent_workers=work.workers > 0,
        dataloader_pin_memory=not work.cpu,
        use_cpu=work.cpu,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def hf_trainer(work: Work, tick: Tick) -> None:
    """Hugging Face Trainer on CLIPModel's own contrastive loss."""
    model = CLIPModel.from_pretrained(work.folder)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=model,
            args=arguments(TrainingArguments, work, folder),
            train_dataset=Pairs(work),
            data_collator=collate,
            callbacks=[Ticks(tick)],
        ).train()


def sentence_transformers(work: Work, tick: Tick) -> None:
    """sentence-transformers with its in-batch negatives loss, image to text."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(work.folder), device="cpu" if work.cpu else "cuda")
    table = datasets.Dataset.from_dict(
        {"anchor": [str(path) for path in work.pictures], "positive": work.texts}
    ).cast_column("anchor", datasets.Image())
    with tempfile.TemporaryDirectory() as folder:
        SentenceTransformerTrainer(
            model=model,
            args=arguments(SentenceTransformerTrainingArguments, work, folder),
            train_dataset=table,
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[Ticks(tick)],
        ).train()

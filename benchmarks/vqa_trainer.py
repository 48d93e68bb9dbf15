"""A VQA step here against Hugging Face Trainer: the same model, collator, batches and precision.

    python benchmarks/vqa_trainer.py --steps 40 --rounds 5

Nano Qwen2.5-VL with random weights in NF4 and LoRA; or `--model DIR`, any Qwen2.5-VL folder.
Both see the same rows in the same order and start from the same adapters; without dropout their
losses must be equal. Contenders take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler, SequentialSampler
from train_peers import Ticks
from transformers import Trainer, TrainingArguments

from datasets_mm.building.build import build
from engines.emitter import Emitter
from engines.model_catalog import CATALOG
from engines.param_sections import LORA_TARGETS
from engines.torchkit.data.data_loader import EpochPermutation, Loader
from engines.torchkit.modeling import lora, pretrained
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import loop
from engines.torchkit.training.optimization import adamw
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch
from engines.vqa.data import questions
from engines.vqa.data.batches import QuestionCollator
from engines.vqa.data.image_inputs import ImageInputs
from engines.vqa.data.images import Pictures, SizeLimits
from engines.vqa.data.questions import Questions
from engines.vqa.models import chat_template
from engines.vqa.models import processor as models_processor
from engines.vqa.models.model import Answerer, VqaBatch
from engines.vqa.nano import model
from engines.vqa.prepare import load_hf_processor
from workbench import paths


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=0, help="long side, pixels; 0: the entry's")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--model", default="", help="folder of a Qwen2.5-VL; empty: the nano")
    return parser.parse_args()


class Work:
    """What both contenders do."""

    def __init__(self, args: argparse.Namespace, vqa_questions: Questions, folder: Path) -> None:
        self.args = args
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = Precision(args.precision, self.device)
        self.folder = folder
        processor = load_hf_processor(folder)
        seeing = models_processor.create_processor(
            processor, chat_template.read_chat_template(processor, "", folder), folder
        )
        limits = SizeLimits(args.side, 784, 1 << 20, seeing.factor)
        pictures = Pictures(seeing, limits, paths.cache_root(), lambda *_: None)
        pictures.add(vqa_questions.root, vqa_questions.paths)
        self.gather = QuestionCollator(
            ImageInputs(pictures, self.precision), vqa_questions, 0, shuffle=True
        )
        self.order = EpochPermutation(len(vqa_questions), args.batch, 1, 0)

    def model(self) -> Any:
        """With fresh adapters, always the same ones."""
        model = pretrained.load(
            self.folder, pretrained.VISION_LANGUAGE, self.precision, four_bit=True, double=True
        )
        torch.manual_seed(0)
        return lora.add_lora(
            model, 16, 32, 0.0, LORA_TARGETS, pretrained.language_module_name(model)
        )

    def ours(self) -> tuple[list[float], list[float]]:
        """Seconds and loss of every step."""
        model, losses = Answerer(self.model()).to(self.device), []

        def forward(batch: VqaBatch) -> loop.LossOutput:
            nats, tokens, _ = model(batch.inputs(), batch.labels)
            losses.append((nats.sum() / tokens.sum()).detach())
            return loop.LossOutput(nats.sum() / tokens.sum(), {}, len(batch))

        job = loop.TrainingJob(
            model=model,
            loader=Loader(self.order, self.gather, 0),
            transfer=lambda batch: self.gather.to_device(batch, self.device),
            forward=forward,
            optimizer=adamw(model, self.args.lr, 0.01, (0.9, 0.999), fused=True),
            lr_at=lambda _: self.args.lr,
            precision=Precision(self.args.precision, self.device),
            steps=self.args.steps,
            max_grad_norm=1.0,
        )
        emit, per_epoch = Emitter(), self.order.steps_per_epoch
        meter = StepTimer(stopwatch(self.device), 0, per_epoch)
        began = time.perf_counter()
        loop.train(job, meter, TimingSummary(per_epoch, 0), emit)
        whole = time.perf_counter() - began
        windows = [m for m in emit.sent if m.kind == "step"]
        seconds = [value for window in windows for value in window.step_seconds]
        return [*seconds[1:], whole], [float(loss) for loss in losses]

    def trainer(self) -> tuple[list[float], list[float]]:
        """The same by Hugging Face Trainer."""
        ends: list[float] = []
        rows = np.concatenate(
            [self.order.micro_batches(step)[0] for step in range(self.args.steps)]
        )

        def collate(items: list[int]) -> dict[str, torch.Tensor]:
            host = self.gather(np.asarray(items), 0)
            batch = self.gather.to_device(host, torch.device("cpu"))
            return {**batch.inputs(), "labels": batch.labels}

        class InOrder(Trainer):
            def _get_train_sampler(self, *_: Any) -> Sampler[int]:
                return SequentialSampler(self.train_dataset)

        on = self.precision.name
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                folder, per_device_train_batch_size=self.args.batch, max_steps=self.args.steps,
                learning_rate=self.args.lr, lr_scheduler_type="constant", weight_decay=0.01,
                optim="adamw_torch_fused", max_grad_norm=1.0, remove_unused_columns=False,
                report_to="none", logging_steps=1, logging_first_step=True, save_strategy="no",
                bf16=on == "bf16", fp16=on == "fp16", use_cpu=self.device.type == "cpu",
                dataloader_pin_memory=False, disable_tqdm=True, seed=0, label_names=["labels"],
            )  # fmt: skip
            tick = Ticks(lambda _: ends.append(time.perf_counter()))
            trainer = InOrder(
                model=self.model(), args=settings, train_dataset=rows.tolist(),
                data_collator=collate, callbacks=[tick],
            )  # fmt: skip
            began = time.perf_counter()
            trainer.train()
            whole = time.perf_counter() - began
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        return [*np.diff(ends).tolist(), whole], losses


def rounds(work: Work) -> Iterator[dict[str, tuple[list[float], list[float]]]]:
    for number in range(work.args.rounds):
        names = ("ours", "trainer") if number % 2 == 0 else ("trainer", "ours")
        yield {name: getattr(work, name)() for name in names}


def nano(folder: Path, vqa_questions: Questions) -> None:
    """The nano with random weights: its speed does not depend on them."""
    entry = tomllib.loads((CATALOG / "nano-qwen-vl.toml").read_text("utf-8"))
    sizes = entry["architecture"]
    processor = model.build_processor(
        vqa_questions.texts, int(sizes["vocabulary"]), int(sizes["patch"])
    )
    torch.manual_seed(0)
    model.build_model(processor, sizes).save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.side = args.side or (384 if args.model else 84)
    vqa_questions = questions.read_questions(
        build("easy_vqa_train", paths.cache_root(), None, lambda *_: None, "")
    ).select(range(min(1000, args.steps * args.batch)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.model) if args.model else Path(temporary)
        if not args.model:
            nano(folder, vqa_questions)
        work = Work(args, vqa_questions, folder)
        results = list(rounds(work))
    ratios = []
    for result in results:
        ours, theirs = (statistics.median(result[name][0][:-1]) for name in ("ours", "trainer"))
        ratios.append(theirs / ours)
        print(
            f"step {1000 * ours:7.1f} ms ours, {1000 * theirs:7.1f} ms Trainer: {ratios[-1]:.3f}x"
        )
    ours, theirs = (results[0][name][1] for name in ("ours", "trainer"))
    print(f"median {statistics.median(ratios):.3f}x, {min(ratios):.3f} to {max(ratios):.3f}")
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(
        f"losses of {len(ours)} steps, {ours[0]:.3f} to {ours[-1]:.3f}: at most {apart:.1e} apart"
    )


if __name__ == "__main__":
    main()

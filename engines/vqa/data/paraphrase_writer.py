"""Writes a table of paraphrases with a local language model: `workbench data paraphrase`.

Runs as a process of its own before training, so that the table can be read, corrected and shared.
Simple filters drop wordings that lose a number, repeat the question or are too long; whether the
rest keeps the meaning is for a person to check.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets_mm.child_messages import emit_message, percent_progress

PROMPT: Final = (
    "Say this question about a picture in other words, in the language in which it is written. It "
    "must mean exactly the same and have the same answer; keep all names and numbers. Reply with "
    "the question alone.\n\nQuestion: {}"
)
COLUMNS: Final = ("question", "paraphrase", "model", "seed")
NEW_TOKENS: Final = 96
TEMPERATURE: Final = 0.8
TOP_P: Final = 0.95
LONGER: Final = 3
"""Longest wording as a multiple of its question, plus forty characters."""

Writer = Callable[[Sequence[str]], list[list[str]]]
"""Takes questions; returns the outputs of the model for each."""


class ParaphraseJob(NamedTuple):
    """The table to write."""

    questions: list[str]
    model: str
    seed: int
    out: Path


def filter_wordings(question: str, texts: Sequence[str]) -> list[str]:
    """Wordings that pass the filters: not the question, equal numbers, not too long."""
    wordings: dict[str, str] = {question.casefold(): ""}
    numbers = sorted(re.findall(r"\d+", question))
    for text in texts:
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        words = " ".join((lines or [""])[0].strip("\"'“”").split())
        words = re.sub(r"^question\s*:\s*", "", words, flags=re.IGNORECASE)
        rejected = words.casefold() in wordings or len(words) > LONGER * len(question) + 40
        if words and not rejected and sorted(re.findall(r"\d+", words)) == numbers:
            wordings[words.casefold()] = words
    return [words for words in wordings.values() if words]


def write_table(
    job: ParaphraseJob, writer: Writer, batch: int, report_progress: Callable[[int, int, str], None]
) -> int:
    """Write the table atomically; returns the number of wordings."""
    draft = job.out.with_name(f".{job.out.name}.{os.getpid()}")
    count, whole = 0, len(job.questions)
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for start in range(0, whole, batch):
                questions = job.questions[start : start + batch]
                for question, texts in zip(questions, writer(questions), strict=True):
                    for words in filter_wordings(question, texts):
                        table.writerow((question, words, job.model, job.seed))
                        count += 1
                report_progress(start + len(questions), whole, "questions")
        draft.replace(job.out)
    finally:
        draft.unlink(missing_ok=True)
    return count


def load_writer(folder: Path, each: int, seed: int) -> Writer:
    """Load a causal language model that writes `each` paraphrases of a question.

    Raises:
        ValueError, OSError: the folder has no such model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library: Any = AutoTokenizer
    tokenizer = library.from_pretrained(
        folder, padding_side="left", local_files_only=True, trust_remote_code=False
    )
    gpu = torch.cuda.is_available()
    dtype = torch.float32
    if gpu:
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    model.eval().to("cuda" if gpu else "cpu")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(seed)

    def prompt(question: str) -> str:
        text = PROMPT.format(question)
        if not getattr(tokenizer, "chat_template", None):
            return f"{text}\nIn other words:"
        turn = [{"role": "user", "content": text}]
        return str(
            tokenizer.apply_chat_template(
                turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    @torch.inference_mode()
    def writer(questions: Sequence[str]) -> list[list[str]]:
        inputs = tokenizer(list(map(prompt, questions)), return_tensors="pt", padding=True)
        outputs = model.generate(
            **{name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")},
            max_new_tokens=NEW_TOKENS, do_sample=True, temperature=TEMPERATURE, top_p=TOP_P,
            num_return_sequences=each, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        new = outputs[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [texts[start : start + each] for start in range(0, len(texts), each)]

    return writer


def find_model_folder(name: str) -> Path:
    """Folder of a language model: `path:/abs/dir`, `hub:org/name`, or the name of a captioner.

    Raises:
        LookupError: it is not here; a sentence.
    """
    from engines import model_catalog

    kind, _, rest = name.partition(":")
    if kind == "path":
        part: model_catalog.ModelPart | None = model_catalog.ModelPart(path=rest)
    elif kind == "hub":
        hub, _, revision = rest.partition("@")
        part = model_catalog.ModelPart(hub=hub, revision=revision or "main")
    else:
        part = model_catalog.load(name).llm
    folder = None if part is None else model_catalog.weights_folder(part)
    if part is None or (folder is None and not part.hub):
        raise LookupError(
            f"model '{name}' has no language model's weights; give path:/abs/dir or hub:org/name"
        )
    if sentence := model_catalog.find_part_problem(
        name, part, (*model_catalog.PART_FILES, "tokenizer.json")
    ):
        raise LookupError(sentence)
    if folder is None:
        raise LookupError(f"model '{name}' is not in the hub's cache")
    return folder


def read_questions(options: argparse.Namespace) -> Iterator[str]:
    """The subset's questions, each once, in order.

    Raises:
        EngineError: the subset cannot be built, or has no question with options.
    """
    from engines.emitter import Emitter
    from engines.torchkit.data.subset_source import SubsetSource
    from engines.vqa.data import questions

    root = str(options.data_root) if options.data_root else None
    source = SubsetSource(options.cache_root, root, options.image_root)
    records = questions.read_questions(source.build(options.subset, Emitter(None)))
    texts = list(dict.fromkeys(text.strip() for text in records.texts if text.strip()))
    yield from texts[: options.limit] if options.limit else texts


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one table; reports as JSON lines on stdout."""
    from engines.emitter import EngineError

    parser = argparse.ArgumentParser(
        prog="python -m engines.vqa.data.paraphrase_writer", description=__doc__
    )
    parser.add_argument("subset")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--image-root", default="")
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = find_model_folder(options.model)
        job = ParaphraseJob(list(read_questions(options)), options.model, options.seed, options.out)
        writer = load_writer(folder, options.each, options.seed)
        count = write_table(job, writer, options.batch, percent_progress())
    except (EngineError, LookupError, ValueError, OSError, ImportError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        emit_message(kind="failed", error=f"paraphrase {options.subset}: {reason}")
        return 1
    summary = f"{count:,} wordings of {len(job.questions):,} questions"
    emit_message(kind="done", folder=f"{options.out} ({summary})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes a table of paraphrases with a local language model: `workbench data paraphrase`.

A child of its own, before any training: what was written can be read, corrected and handed on, and
every run that names the table learns the same words. Greedy filters, no judge: a wording that loses
a number, repeats the question or runs away is left out; whether the rest means the same is for a
person to see.
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
"""A wording may be so many times as long as its question, and forty characters more."""

Writer = Callable[[Sequence[str]], list[list[str]]]
"""Questions -> what the model says of each."""


class Asked(NamedTuple):
    """What is to be written."""

    questions: list[str]
    model: str
    seed: int
    out: Path


def kept(question: str, said: Sequence[str]) -> list[str]:
    """The wordings that can be one: other words, the same numbers, no more than a question."""
    found: dict[str, str] = {question.casefold(): ""}
    numbers = sorted(re.findall(r"\d+", question))
    for text in said:
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        words = " ".join((lines or [""])[0].strip("\"'“”").split())
        words = re.sub(r"^question\s*:\s*", "", words, flags=re.IGNORECASE)
        known = words.casefold() in found or len(words) > LONGER * len(question) + 40
        if words and not known and sorted(re.findall(r"\d+", words)) == numbers:
            found[words.casefold()] = words
    return [words for words in found.values() if words]


def write(asked: Asked, writer: Writer, batch: int, say: Callable[[int, int, str], None]) -> int:
    """Write the table; how many wordings it has. Beside first, so that no half table is taken."""
    draft = asked.out.with_name(f".{asked.out.name}.{os.getpid()}")
    count, whole = 0, len(asked.questions)
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for start in range(0, whole, batch):
                some = asked.questions[start : start + batch]
                for question, said in zip(some, writer(some), strict=True):
                    for words in kept(question, said):
                        table.writerow((question, words, asked.model, asked.seed))
                        count += 1
                say(start + len(some), whole, "questions")
        draft.replace(asked.out)
    finally:
        draft.unlink(missing_ok=True)
    return count


def language_model(folder: Path, each: int, seed: int) -> Writer:
    """A causal language model of a folder that says each question `each` times in other words.

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
        asked = tokenizer(list(map(prompt, questions)), return_tensors="pt", padding=True)
        said = model.generate(
            **{name: asked[name].to(model.device) for name in ("input_ids", "attention_mask")},
            max_new_tokens=NEW_TOKENS, do_sample=True, temperature=TEMPERATURE, top_p=TOP_P,
            num_return_sequences=each, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        new = said[:, asked["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [texts[at : at + each] for at in range(0, len(texts), each)]

    return writer


def folder_of(name: str) -> Path:
    """Where a language model lies: `path:/abs/dir`, `hub:org/name`, or a captioner's, by its name.

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


def questions_of(given: argparse.Namespace) -> Iterator[str]:
    """The subset's questions, each once, in order.

    Raises:
        EngineError: the subset cannot be built, or has no question with options.
    """
    from engines.emitter import Emitter
    from engines.torchkit.data.subsets import SubsetSource
    from engines.vqa.data import questions

    root = str(given.data_root) if given.data_root else None
    source = SubsetSource(given.cache_root, root, given.image_root)
    own = questions.read(source.build(given.subset, Emitter(None)))
    texts = list(dict.fromkeys(text.strip() for text in own.texts if text.strip()))
    yield from texts[: given.limit] if given.limit else texts


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one table, speaking JSON lines on stdout."""
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
    given = parser.parse_args(arguments)
    try:
        folder = folder_of(given.model)
        asked = Asked(list(questions_of(given)), given.model, given.seed, given.out)
        writer = language_model(folder, given.each, given.seed)
        count = write(asked, writer, given.batch, percent_progress())
    except (EngineError, LookupError, ValueError, OSError, ImportError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        emit_message(kind="failed", error=f"paraphrase {given.subset}: {reason}")
        return 1
    said = f"{count:,} wordings of {len(asked.questions):,} questions"
    emit_message(kind="done", folder=f"{given.out} ({said})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How a question is put to the model: the processor's own chat template around it, as token ids.

Apart from the model because here most can go wrong in silence. In training the assistant's answer
stands inside the text and the loss is on it alone: the letter and the token that ends the turn. A
text without the answer teaches to answer nothing, a text that asks for a generation is cut off
before it; both are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.emitter import EngineError

LETTERS: Final = "abcd"
IGNORED: Final = -100
"""Label of what is not learnt; torch's cross entropy leaves it out."""
IMAGE: Final = 1
"""In `mm_token_type_ids`: a token of the picture; text is 0."""
ASKED: Final = "\x02asked\x02"
"""Stands where the question will; no template and no question has it."""
DAY: Final = {"%Y": "2025", "%m": "01", "%d": "01", "%b": "Jan", "%B": "January"}
"""Every day is this one to a template that tells the date (Mistral 3, Llama 3): a run that is
resumed tomorrow goes on with the same prompt."""

Ids = npt.NDArray[np.int64]


class Said(NamedTuple):
    """One question with its options, in the order shown."""

    question: str
    options: Sequence[str]
    answer: str | None
    """The letter, where it is to be learnt."""


class Encoded(NamedTuple):
    """One question as tokens, all [T]."""

    ids: Ids
    labels: Ids
    """IGNORED but on the answer; all of them where there is no answer."""
    types: Ids
    """IMAGE at the tokens of the picture, else 0."""


@dataclass(frozen=True)
class Wording:
    """A processor's template, cut at the question, and what its tokens mean."""

    tokenizer: Any
    """Of the `tokenizers` library: it encodes outside of the interpreter lock."""
    before: str
    """Up to the question; holds the place of the picture."""
    between: str
    """From the question to the answer: the generation prompt."""
    image: int | None
    """The token that stands for a token of the picture, where `before` holds it once; else None:
    only the processor knows what a picture becomes."""
    letters: tuple[int, int, int, int]
    """What the answer's first position is asked for: a, b, c, d as they are trained."""
    end: int
    """Ends the assistant's turn, and is learnt."""
    stops: tuple[int, ...]
    """Where what is written ends: `end`, and the token that ends every text."""
    pad: int
    prompt: str
    special: tuple[str, ...]
    """Tokens with a meaning of their own; a question that holds one is made harmless."""

    def asked(self, question: str, options: Sequence[str]) -> str:
        """What the user says."""
        listed = "\n".join(f"{a}. {o}" for a, o in zip(LETTERS, options, strict=bool(options)))
        text = "\n".join(one for one in (question, listed, self.prompt) if one)
        for token in self.special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def text(self, said: Said) -> str:
        """The whole prompt, a placeholder for its picture."""
        return f"{self.before}{self.asked(said.question, said.options)}{self.between}"

    def answer(self, said: Said) -> list[int]:
        """The tokens to be learnt: the letter and the end of the turn; none without an answer."""
        return [] if said.answer is None else [self.letters[LETTERS.index(said.answer)], self.end]

    def lengths(self, said: Sequence[Said]) -> list[int]:
        """Tokens of each with its answer; the picture counts as one."""
        texts = [self.text(one) for one in said]
        found = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [len(f.ids) + len(self.answer(o)) for f, o in zip(found, said, strict=True)]

    def encode(self, said: Said, image_tokens: int) -> Encoded:
        """The question up to the answer, or with it: then letter and end are labelled."""
        ids = np.asarray(
            self.tokenizer.encode(self.text(said), add_special_tokens=False).ids, np.int64
        )
        learnt = self.answer(said)
        place = int(np.flatnonzero(ids == self.image)[0])
        whole = np.concatenate(
            [ids[:place], np.full(image_tokens, self.image), ids[place + 1 :], learnt]
        ).astype(np.int64)
        labels = np.full_like(whole, IGNORED)
        if learnt:
            labels[-len(learnt) :] = learnt
        return Encoded(whole, labels, np.where(whole == self.image, IMAGE, 0))

    def decode(self, ids: Sequence[int]) -> str:
        """Text up to the end of the turn."""
        said = itertools.takewhile(lambda one: one not in self.stops, ids)
        return str(self.tokenizer.decode(list(said), skip_special_tokens=True)).strip()


def of(processor: Any, prompt: str, folder: Path) -> Wording:
    """The wording of a processor.

    Raises:
        EngineError: it has no chat template or no place for a picture, the template is not one
            that a question can be cut out of, its letters are no single tokens, or its tokenizer
            is not of the `tokenizers` library.
    """
    if not getattr(processor, "chat_template", None):
        raise EngineError(
            f"{folder}: its processor has no chat template; take an instruction-tuned model, or "
            "put its chat_template.jinja there"
        )
    opening = rendered(processor, None, folder)
    parts = opening.split(ASKED)
    if len(parts) != 2:
        raise EngineError(f"{folder}: its chat template changes what the user says; take another")
    answers = {letter: rendered(processor, letter, folder) for letter in LETTERS}
    tails = {letter: learnt(opening, said, folder) for letter, said in answers.items()}
    tokenizer = processor.tokenizer
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise EngineError(f"{folder}: it has no tokenizer.json; take a model with a fast tokenizer")
    letters, end = single_tokens(tokenizer, parts[1], tails, folder)
    if rendered(processor, None, folder, picture=False) == opening:
        raise EngineError(f"{folder}: its chat template has no place for a picture; take another")
    token = getattr(processor, "image_token", None)
    image = None if token is None else tokenizer.convert_tokens_to_ids(token)
    before = _opened(tokenizer, parts[0])
    once = tokenizer(before, add_special_tokens=False)["input_ids"].count(image) == 1
    fast = tokenizer.backend_tokenizer
    fast.no_padding()
    fast.no_truncation()
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    return Wording(
        fast, before, parts[1], image if once else None, letters, end,
        (end,) if eos in (None, end) else (end, eos), end if pad is None else pad, prompt,
        _special(tokenizer, token),
    )  # fmt: skip


def rendered(processor: Any, answer: str | None, folder: Path, *, picture: bool = True) -> str:
    """The template around ASKED; with an answer as a training text, else as a prompt."""
    shown = [{"type": "image"}] if picture else []
    content = [*shown, {"type": "text", "text": ASKED}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answer is not None:
        said = [{"type": "text", "text": answer}]
        messages.append({"role": "assistant", "content": said})
    try:
        text = processor.apply_chat_template(
            messages, _dated(processor.chat_template), tokenize=False,
            add_generation_prompt=answer is None,
        )  # fmt: skip
    except Exception as error:  # a template is a program: it may raise whatever it likes
        reason = (str(error).splitlines() or [""])[0][:200]
        raise EngineError(f"{folder}: its chat template fails ({reason})") from None
    return str(text)


def _dated(template: Any) -> Any:
    """The template, a clock before it that stands still."""
    if not isinstance(template, str) or "strftime_now" not in template:
        return template
    told = "".join(f"|replace('{code}', '{said}')" for code, said in DAY.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{told} }}}}{{% endmacro %}}{template}"


def learnt(opening: str, training: str, folder: Path) -> str:
    """What a training text has beyond the prompt: the answer and the end of its turn.

    Raises:
        EngineError: the text does not begin with the prompt, or has no answer: it was made with
            add_generation_prompt=True, or without the assistant's message.
    """
    said = training[len(opening) :] if training.startswith(opening) else ""
    between = opening.rpartition(ASKED)[2]
    if not said.strip() or (between and said.endswith(between)):
        raise EngineError(
            f"{folder}: the training text does not hold the answer behind the prompt; the "
            "assistant's message belongs into the text, with add_generation_prompt=False"
        )
    return said


def single_tokens(
    tokenizer: Any, between: str, tails: dict[str, str], folder: Path
) -> tuple[tuple[int, int, int, int], int]:
    """The tokens of the four letters, as they follow the prompt, and the one that ends the turn.

    Raises:
        EngineError: a letter is not one token there, or nothing ends the turn.
    """
    start = tokenizer(between, add_special_tokens=False)["input_ids"]
    letters, ends = [], set()
    for letter in LETTERS:
        ids = tokenizer(f"{between}{tails[letter]}", add_special_tokens=False)["input_ids"]
        first, *rest = ids[len(start) :] or [None]
        if ids[: len(start)] != start or first is None or _text(tokenizer, first) != letter:
            raise EngineError(f"{folder}: the answer '{letter}' is not one token in its template")
        letters.append(first)
        ends.add(_turn_end(tokenizer, rest, folder))
    if len(set(letters)) != len(LETTERS) or len(ends) != 1:
        raise EngineError(f"{folder}: its template does not end an answer in one and the same way")
    a, b, c, d = letters
    return (a, b, c, d), ends.pop()


def _turn_end(tokenizer: Any, rest: Sequence[int], folder: Path) -> int:
    """The token behind an answer, if it has a meaning; else the one that ends every text.

    LLaVA's own template puts a blank there, and the model was trained to end its text.
    """
    meant = tokenizer.convert_tokens_to_ids(list(_special(tokenizer, None)))
    if rest and rest[0] in meant:
        return rest[0]
    if tokenizer.eos_token_id is None:
        raise EngineError(f"{folder}: neither its template nor its tokenizer ends an answer")
    return int(tokenizer.eos_token_id)


def _opened(tokenizer: Any, before: str) -> str:
    """The text with the token that opens every text, where the tokenizer itself would put it."""
    first = tokenizer.bos_token
    if not first or before.startswith(first):
        return before
    whole = tokenizer("a")["input_ids"]
    return f"{first}{before}" if whole[0] == tokenizer.bos_token_id else before


def _special(tokenizer: Any, image: str | None) -> tuple[str, ...]:
    """Texts that are tokens with a meaning; an image's need not be among the tokenizer's own.

    Llama 3's <|start_header_id|> and many others are special without a name: only the table of
    added tokens has them.
    """
    added = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    found = [*map(str, tokenizer.all_special_tokens), *added, *([str(image)] if image else [])]
    return tuple(dict.fromkeys(found))


def _text(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token])).strip().lower()

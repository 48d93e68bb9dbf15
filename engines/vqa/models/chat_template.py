"""Encodes questions with the chat template of a processor.

In training the assistant's answer is part of the text, and the loss is on it alone: the letter and
the token that ends the turn. Templates whose training text lacks the answer, or ends with the
generation prompt, are refused: training on them would fail silently.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from datasets_mm.recipes.record_classes import LETTERS
from engines.emitter import EngineError, first_line

IGNORED: Final = -100
"""Label that cross entropy ignores."""
IMAGE: Final = 1
"""Type of image tokens in `mm_token_type_ids`; text has 0."""
BLANKS: Final = ("", "\u0120", "\u2581")
"""What stands for a blank before a word in vocabularies: nothing, byte-level's, SentencePiece's."""
PLACEHOLDER: Final = "\x02asked\x02"
"""Placeholder of the question; no template and no question contains it."""
DAY: Final = {"%Y": "2025", "%m": "01", "%d": "01", "%b": "Jan", "%B": "January"}
"""Fixed date for templates that print it (Mistral 3, Llama 3), so that prompts are equal every
day."""

Ids = npt.NDArray[np.int64]


class ChoicePrompt(NamedTuple):
    """One question with its options, in the order shown."""

    question: str
    options: Sequence[str]
    answer: str | None
    """The letter to train on; None: no answer."""
    kind: str = ""
    """Type of the question."""


class EncodedQuestion(NamedTuple):
    """A question as tokens, all [T]."""

    ids: Ids
    labels: Ids
    """Token ids on the answer, IGNORED elsewhere."""
    types: Ids
    """IMAGE at image tokens, else 0."""


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a processor, split at the question, and its special tokens."""

    tokenizer: Any
    """Of the `tokenizers` library, which encodes without the interpreter lock."""
    before: str
    """Text up to the question, with the placeholder of the picture."""
    between: str
    """Text from the question to the answer: the generation prompt."""
    image: int | None
    """Id of the image token, where `before` has it once; None: only the processor knows the image
    tokens of a picture."""
    letters: tuple[int, int, int, int]
    """Token ids of the answers a, b, c, d."""
    end: int
    """Token that ends the assistant's turn; trained on."""
    stops: tuple[int, ...]
    """Tokens that end generation: `end`, and the end-of-text token."""
    pad: int
    prompt: str
    special: tuple[str, ...]
    """Texts of special tokens; `user_text` breaks them up in questions."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompt by type of question, in the place of `prompt`."""
    forms: tuple[tuple[int, ...], ...] = ()
    """Ids of all tokens that write each letter (a, A, with a blank before); empty: `letters`."""

    def user_text(self, question: str, options: Sequence[str], kind: str = "") -> str:
        """The user message: question, options and the prompt of its type."""
        listed = "\n".join(f"{a}. {o}" for a, o in zip(LETTERS, options, strict=bool(options)))
        prompt = self.prompts.get(kind, self.prompt)
        text = "\n".join(line for line in (question, listed, prompt) if line)
        for token in self.special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def prompt_text(self, prompt: ChoicePrompt) -> str:
        """The full prompt, with the placeholder of its picture."""
        text = self.user_text(prompt.question, prompt.options, prompt.kind)
        return f"{self.before}{text}{self.between}"

    def answer_tokens(self, prompt: ChoicePrompt) -> list[int]:
        """Ids of the letter and the end of the turn; empty without an answer."""
        return (
            [] if prompt.answer is None else [self.letters[LETTERS.index(prompt.answer)], self.end]
        )

    def count_tokens(self, prompts: Sequence[ChoicePrompt]) -> list[int]:
        """Number of tokens of each prompt with its answer; the picture counts as one."""
        texts = [self.prompt_text(prompt) for prompt in prompts]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [
            len(encoding.ids) + len(self.answer_tokens(question))
            for encoding, question in zip(encodings, prompts, strict=True)
        ]

    def encode(self, prompt: ChoicePrompt, image_tokens: int) -> EncodedQuestion:
        """Token ids of a prompt with `image_tokens` image tokens; labels on its answer, if any."""
        ids = np.asarray(
            self.tokenizer.encode(self.prompt_text(prompt), add_special_tokens=False).ids, np.int64
        )
        answer = self.answer_tokens(prompt)
        position = int(np.flatnonzero(ids == self.image)[0])
        sequence = np.concatenate(
            [ids[:position], np.full(image_tokens, self.image), ids[position + 1 :], answer]
        ).astype(np.int64)
        labels = np.full_like(sequence, IGNORED)
        if answer:
            labels[-len(answer) :] = answer
        return EncodedQuestion(sequence, labels, np.where(sequence == self.image, IMAGE, 0))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids up to the first of `stops`."""
        kept = itertools.takewhile(lambda token: token not in self.stops, ids)
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=True)).strip()


def read_chat_template(processor: Any, prompt: str, folder: Path) -> ChatTemplate:
    """The chat template of a processor.

    Raises:
        EngineError: it has no chat template or no place for a picture, the template changes the
            question, its letters are no single tokens, or its tokenizer is not of the `tokenizers`
            library.
    """
    if not getattr(processor, "chat_template", None):
        raise EngineError(
            f"{folder}: its processor has no chat template; take an instruction-tuned model, or "
            "put its chat_template.jinja there"
        )
    opening = render_template(processor, None, folder)
    parts = opening.split(PLACEHOLDER)
    if len(parts) != 2:
        raise EngineError(f"{folder}: its chat template changes what the user says; take another")
    answers = {letter: render_template(processor, letter, folder) for letter in LETTERS}
    tails = {letter: trained_text(opening, text, folder) for letter, text in answers.items()}
    tokenizer = processor.tokenizer
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise EngineError(f"{folder}: it has no tokenizer.json; take a model with a fast tokenizer")
    letters, end = find_letter_tokens(tokenizer, parts[1], tails, folder)
    if render_template(processor, None, folder, picture=False) == opening:
        raise EngineError(f"{folder}: its chat template has no place for a picture; take another")
    token = getattr(processor, "image_token", None)
    image = None if token is None else tokenizer.convert_tokens_to_ids(token)
    before = _with_bos(tokenizer, parts[0])
    holds_one = tokenizer(before, add_special_tokens=False)["input_ids"].count(image) == 1
    fast = tokenizer.backend_tokenizer
    fast.no_padding()
    fast.no_truncation()
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    return ChatTemplate(
        fast, before, parts[1], image if holds_one else None, letters, end,
        (end,) if eos in (None, end) else (end, eos), end if pad is None else pad, prompt,
        _special_tokens(tokenizer, token),
    )  # fmt: skip


def render_template(
    processor: Any, answer: str | None, folder: Path, *, picture: bool = True
) -> str:
    """The template around PLACEHOLDER: a training text with an answer, else a prompt."""
    image = [{"type": "image"}] if picture else []
    content = [*image, {"type": "text", "text": PLACEHOLDER}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answer is not None:
        reply = [{"type": "text", "text": answer}]
        messages.append({"role": "assistant", "content": reply})
    try:
        text = processor.apply_chat_template(
            messages, _with_fixed_date(processor.chat_template), tokenize=False,
            add_generation_prompt=answer is None, **_switch_off_thinking(processor.chat_template),
        )  # fmt: skip
    except Exception as error:  # a template is a program: any exception
        raise EngineError(f"{folder}: its chat template fails ({first_line(error)})") from None
    return str(text)


def _switch_off_thinking(template: Any) -> dict[str, bool]:
    """Argument of templates that would leave a thought open in a prompt (Qwen3.5)."""
    return {"enable_thinking": False} if "enable_thinking" in str(template) else {}


def _with_fixed_date(template: Any) -> Any:
    """The template with `strftime_now` replaced by the fixed date."""
    if not isinstance(template, str) or "strftime_now" not in template:
        return template
    replacements = "".join(f"|replace('{code}', '{value}')" for code, value in DAY.items())
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replacements} }}}}{{% endmacro %}}"
    return f"{macro}{template}"


def trained_text(opening: str, training: str, folder: Path) -> str:
    """The part of a training text after the prompt: the answer and the end of its turn.

    Raises:
        EngineError: the text does not begin with the prompt, or has no answer.
    """
    answer = training[len(opening) :] if training.startswith(opening) else ""
    between = opening.rpartition(PLACEHOLDER)[2]
    if not answer.strip() or (between and answer.endswith(between)):
        raise EngineError(
            f"{folder}: the training text does not hold the answer behind the prompt; the "
            "assistant's message belongs into the text, with add_generation_prompt=False"
        )
    return answer


def find_letter_tokens(
    tokenizer: Any, between: str, tails: dict[str, str], folder: Path
) -> tuple[tuple[int, int, int, int], int]:
    """Token ids of the four letters after the prompt, and of the end of the turn.

    Raises:
        EngineError: a letter is not one token there, or nothing ends the turn.
    """
    start = tokenizer(between, add_special_tokens=False)["input_ids"]
    letters, ends = [], set()
    for letter in LETTERS:
        ids = tokenizer(f"{between}{tails[letter]}", add_special_tokens=False)["input_ids"]
        first, *rest = ids[len(start) :] or [None]
        if ids[: len(start)] != start or first is None or _decode_token(tokenizer, first) != letter:
            raise EngineError(f"{folder}: the answer '{letter}' is not one token in its template")
        letters.append(first)
        ends.add(_find_turn_end(tokenizer, rest, folder))
    if len(set(letters)) != len(LETTERS) or len(ends) != 1:
        raise EngineError(f"{folder}: its template does not end an answer in one and the same way")
    a, b, c, d = letters
    return (a, b, c, d), ends.pop()


def find_letter_forms(template: ChatTemplate, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Ids of all tokens that write each letter: the one of its answer, a, A, and after a blank."""
    vocabulary = tokenizer.get_vocab()
    forms = []
    for letter, answer in zip(LETTERS, template.letters, strict=True):
        texts = [f"{blank}{text}" for blank in BLANKS for text in (letter, letter.upper())]
        tokens = [answer, *(vocabulary[text] for text in texts if text in vocabulary)]
        forms.append(tuple(dict.fromkeys(tokens)))
    return tuple(forms)


def _find_turn_end(tokenizer: Any, rest: Sequence[int], folder: Path) -> int:
    """The token after an answer, if it is special; else the end-of-text token.

    LLaVA's template puts a blank after an answer, and the model was trained to end its text.
    """
    meant = tokenizer.convert_tokens_to_ids(list(_special_tokens(tokenizer, None)))
    if rest and rest[0] in meant:
        return rest[0]
    if tokenizer.eos_token_id is None:
        raise EngineError(f"{folder}: neither its template nor its tokenizer ends an answer")
    return int(tokenizer.eos_token_id)


def _with_bos(tokenizer: Any, before: str) -> str:
    """The text with the begin-of-text token, where the tokenizer would add it."""
    first = tokenizer.bos_token
    if not first or before.startswith(first):
        return before
    whole = tokenizer("a")["input_ids"]
    return f"{first}{before}" if whole[0] == tokenizer.bos_token_id else before


def _special_tokens(tokenizer: Any, image: str | None) -> tuple[str, ...]:
    """Texts of all special tokens, including the image token.

    Many, such as Llama 3's <|start_header_id|>, are only in the table of added tokens.
    """
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    texts = [*map(str, tokenizer.all_special_tokens), *added, *([str(image)] if image else [])]
    return tuple(dict.fromkeys(texts))


def _decode_token(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token])).strip().lower()

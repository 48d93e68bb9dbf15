"""Chat templates as published models have them: what ends an answer, and which day it is."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as library

from engines.emitter import EngineError
from engines.torchkit.training import nano_models
from engines.vqa.models import chat_template
from engines.vqa.models import processor as models_processor
from engines.vqa.models.chat_template import ChoicePrompt
from engines.vqa.models.hf_processor import HFProcessor
from engines.vqa.models.model import PIXELS
from engines.vqa.models.qwen_patches import QwenPatchProcessor
from tests.engines import tiny_vqa
from tests.engines.vlm_kinds import PATCH, SIDE, TEMPLATE

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""That of LLaVA 1.5: nothing but a blank behind an answer."""
CHATML = TEMPLATE.replace("PICTURE", "<image>")
CUT = CHATML.replace("<|im_end|>\n", "{% if message['role'] == 'user' %}<|im_end|>\n{% endif %}")
"""Nothing at all behind an answer."""
DATED = "{%- set today = strftime_now('%d %B %Y, %b, %Y-%m-%d') %}Today is {{ today }}.\n" + CHATML
PLACE = Path("folder")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [
        f"USER: {text} ASSISTANT: {letter} " for letter in "abcd" for text in ("it?", "is it?")
    ]
    return library.PreTrainedTokenizerFast(
        tokenizer_object=nano_models.train_byte_tokenizer(
            texts * 20, 400, ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<image>")
        ),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "<image>"],
    )  # fmt: skip


def processor(tokenizer: Any, template: str) -> Any:
    eye = library.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return library.LlavaProcessor(
        image_processor=eye, tokenizer=tokenizer, patch_size=PATCH,
        vision_feature_select_strategy="default", chat_template=template,
    )  # fmt: skip


@pytest.mark.parametrize("template", [LLAVA, CUT], ids=["a blank", "nothing"])
def test_a_template_that_ends_no_answer_leaves_it_to_the_end_of_the_text(tokenizer, template):
    words = chat_template.read_chat_template(processor(tokenizer, template), "", PLACE)
    assert words.end == tokenizer.eos_token_id
    assert words.stops == (tokenizer.eos_token_id,)
    learnt = words.answer_tokens(ChoicePrompt("is it?", (), "c"))
    assert tokenizer.decode(learnt[0]).strip() == "c"
    assert learnt[1] == tokenizer.eos_token_id


def test_all_tokens_that_write_a_letter_are_its_forms(tokenizer):
    """The trained one first; then a, A and those after a blank that are one token."""
    words = chat_template.read_chat_template(processor(tokenizer, LLAVA), "", PLACE)
    forms = chat_template.find_letter_forms(words, tokenizer)
    for letter, trained, ids in zip("abcd", words.letters, forms, strict=True):
        assert ids[0] == trained
        texts = {tokenizer.decode([number]) for number in ids}
        assert {letter, letter.upper(), f" {letter}"} <= texts
        assert texts <= {letter, letter.upper(), f" {letter}", f" {letter.upper()}"}
    assert len({number for ids in forms for number in ids}) == sum(map(len, forms))


def test_a_letters_forms_have_its_whole_probability():
    from engines.vqa.answering import sum_letter_forms

    logits = torch.randn(5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forms = [torch.tensor(ids) for ids in ((0, 7, 9), (1,), (2, 8), (3,))]
    shares = logits.softmax(1)
    expected = torch.stack([shares[:, ids].sum(1) for ids in forms], 1)
    found = sum_letter_forms(logits, forms).exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-6)
    single = [torch.tensor([number]) for number in range(4)]
    assert torch.equal(sum_letter_forms(logits, single), logits[:, :4].float())


def test_a_question_gets_the_prompt_of_its_type(tokenizer):
    words = chat_template.read_chat_template(processor(tokenizer, LLAVA), "One letter.", PLACE)
    words = replace(words, prompts={"how many": "Count first."})
    request = ChoicePrompt("how many?", (), None, "how many")
    assert "how many?\nCount first." in words.prompt_text(request)
    assert "how many?\nOne letter." in words.prompt_text(request._replace(kind="what"))


def test_a_template_with_an_end_of_its_own_stops_at_both(tokenizer):
    words = chat_template.read_chat_template(processor(tokenizer, CHATML), "", PLACE)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (words.end, words.stops) == (end, (end, tokenizer.eos_token_id))
    letter = tokenizer("b", add_special_tokens=False)["input_ids"]
    for stop in words.stops:
        assert words.decode([*letter, stop, *letter]) == "b"


def test_an_answer_that_nothing_ends_is_refused(tokenizer):
    endless = processor(tokenizer, CUT)
    endless.tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, extra_special_tokens=["<|im_start|>"]
    )
    with pytest.raises(EngineError, match="neither its template nor its tokenizer ends an answer"):
        chat_template.read_chat_template(endless, "", PLACE)


def test_every_day_is_the_same(tokenizer):
    words = chat_template.read_chat_template(processor(tokenizer, DATED), "", PLACE)
    assert words.before.removeprefix("<s>").startswith(
        "Today is 01 January 2025, Jan, 2025-01-01.\n<|im_start|>user"
    )
    real = processor(tokenizer, DATED).apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], tokenize=False
    )
    assert time.strftime("%Y") in real, "without us it is today's"


def test_a_slow_tokenizer_is_one_sentence(tokenizer):
    class Slow:
        chat_template = CHATML

        def __init__(self) -> None:
            self.tokenizer = object()

        def apply_chat_template(self, *words, **named):
            return processor(tokenizer, CHATML).apply_chat_template(*words, **named)

    with pytest.raises(
        EngineError, match=r"no tokenizer\.json; take a model with a fast tokenizer"
    ):
        chat_template.read_chat_template(Slow(), "", PLACE)


class Other:
    """Qwen's processor, but for one thing."""

    def __init__(self, real: Any, change: str) -> None:
        self.real, self.change = real, change
        self.image_processor, self.tokenizer = real.image_processor, real.tokenizer

    def __call__(self, **named: Any) -> Any:
        if self.change == "words around a picture":
            named["text"] = [
                one.replace("<|image_pad|>", "<|image_pad|>!") for one in named["text"]
            ]
        made = self.real(**named)
        if self.change == "another tensor":
            made["image_merge_sizes"] = made["image_grid_thw"][:, 0]
        if self.change == "no types":
            del made["mm_token_type_ids"]
        if self.change == "another order":
            made["pixel_values"] = made["pixel_values"].flip(0)
        return made


@pytest.mark.parametrize(
    "change", ["", "words around a picture", "another tensor", "no types", "another order"]
)
def test_patches_are_cut_only_where_the_processor_says_nothing_else(tmp_path, change):
    """GLM-4V, ERNIE 4.5, MiniMax and others have image processors like Qwen's, and say more."""
    tiny_vqa.write(tmp_path)
    real = library.AutoProcessor.from_pretrained(tmp_path / "model")
    found = models_processor.create_processor(
        Other(real, change), chat_template.read_chat_template(real, "", tmp_path), tmp_path
    )
    assert isinstance(found, HFProcessor if change else QwenPatchProcessor)
    shown = found.batch([ChoicePrompt("what?", (), None)], [np.full((112, 112, 3), 128, np.uint8)])
    assert len(shown.vision[PIXELS]) == 64

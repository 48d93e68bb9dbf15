"""Qwen3-VL-Embedding against transformers' own processor and model, in tiny sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen3VLModel

from engines import model_catalog
from engines.emitter import EngineError
from engines.retrieval import Params
from engines.retrieval.data.items import TokenItems
from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.models import factory, qwen_embedding, tokenizer
from engines.retrieval.tasks import refuse_training
from tests.engines import vlm_kinds

SIDE = 64
TEXTS = ["what colour is the disc?", "red"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that puts no blank before a text, as Qwen's."""
    place = tmp_path_factory.mktemp("embedding")
    vlm_kinds.qwen3_vl(place)
    file = place / "tokenizer.json"
    text = file.read_text("utf-8")
    file.write_text(text.replace('"add_prefix_space": true', '"add_prefix_space": false'), "utf-8")
    return place


def opened(folder: Path, **settings):
    entry = model_catalog.ModelEntry(name="tiny", family="qwen-embedding", path=str(folder))
    params = Params(**{"image_size": SIDE, "max_length": 32, **settings})
    words = tokenizer.load_model_tokenizer(folder, entry.family)
    model = factory.from_folder(entry, folder, words, params)
    factory.configure_model(model, entry, params, words)
    return model.eval(), words, params


def librarys_vector(folder: Path, text: str | None, picture: np.ndarray | None) -> torch.Tensor:
    processor, model = AutoProcessor.from_pretrained(folder), Qwen3VLModel.from_pretrained(folder)
    image = [] if picture is None else [{"type": "image", "image": Image.fromarray(picture)}]
    content = [*image, *([] if text is None else [{"type": "text", "text": text}])]
    instruction = [{"type": "text", "text": qwen_embedding.INSTRUCTION}]
    inputs = processor.apply_chat_template(
        [{"role": "system", "content": instruction}, {"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    return torch.nn.functional.normalize(model(**inputs).last_hidden_state[0, -1], dim=0)


@torch.inference_mode()
def test_vectors_are_those_of_transformers(folder):
    """Text and picture, text alone, nothing, picture alone: in one batch, so three are padded."""
    model, words, params = opened(folder)
    items = TokenItems.tokenize(TEXTS, words.tokenizer, params.max_length, words.pad)
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    inputs = ItemInputs(
        4, items.gather(np.arange(2)), torch.tensor([0, 1]), torch.from_numpy(pictures),
        torch.tensor([0, 3]),
    )  # fmt: skip
    found = model.encode_items(inputs, "query")
    wanted = [(TEXTS[0], pictures[0]), (TEXTS[1], None), None, (None, pictures[1])]
    for row, item in zip(found, wanted, strict=True):
        expected = torch.zeros_like(row) if item is None else librarys_vector(folder, *item)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)
    assert model.joint
    facts = factory.describe_model(model, params)
    assert facts["parameters"].endswith(" 1 trained")


def test_what_does_not_fit_is_refused(folder):
    with pytest.raises(EngineError, match="image_size = 60: .* multiples of 32"):
        opened(folder, image_size=60)
    with pytest.raises(EngineError, match="scoring = late: .* one vector of an item"):
        opened(folder, scoring="late")
    with pytest.raises(EngineError, match="recurrent: .* gives no blocks"):
        opened(folder, layer_fusion="recurrent")


def test_training_is_refused_before_anything_is_loaded():
    from types import SimpleNamespace

    entry = model_catalog.load("qwen3-vl-embedding-2b")
    for task in ("train", "probe"):
        context = SimpleNamespace(entry=entry, spec=SimpleNamespace(task=task))
        with pytest.raises(EngineError, match="is evaluated, not trained; .* --task evaluate"):
            refuse_training(context)
    refuse_training(SimpleNamespace(entry=entry, spec=SimpleNamespace(task="evaluate")))

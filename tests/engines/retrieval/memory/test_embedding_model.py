"""The memory forecast of Qwen3-VL-Embedding against what a real batch of prompts allocates."""

from pathlib import Path

import pytest
import torch

from engines import model_catalog
from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.retrieval import Params
from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.memory import embedding_model, estimate
from engines.retrieval.models import factory, tokenizer
from tests.engines import allocations, vlm_kinds

WIDER = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 8}
SIDE, LENGTH, ITEMS = 64, 48, 16


def thin_folder(place: Path, patch: pytest.MonkeyPatch) -> Path:
    """A model wide enough that its layers are most of a batch's memory."""
    patch.setattr(vlm_kinds, "TEXT", vlm_kinds.TEXT | WIDER | {"num_key_value_heads": 4})
    eye = {"hidden_size": 128, "intermediate_size": 512, "out_hidden_size": 128}
    patch.setattr(vlm_kinds, "QWEN_VISION", vlm_kinds.QWEN_VISION | eye)
    vlm_kinds.qwen3_vl(place)
    return place


def test_forecast_is_what_a_real_batch_allocates_within_a_tenth(tmp_path, monkeypatch):
    folder = thin_folder(tmp_path, monkeypatch)
    entry = model_catalog.ModelEntry(name="thin", family="qwen-embedding", path=str(folder))
    params = Params(image_size=SIDE, max_length=LENGTH, eval_batch_size=ITEMS, precision="fp32")
    words = tokenizer.load_model_tokenizer(folder, entry.family)
    model = factory.from_folder(entry, folder, words, params).eval()
    monkeypatch.setattr(embedding_model, "PROMPT", model._tokens)
    query = MemoryQuery(
        engine="retrieval", model="thin", params=params.model_dump(mode="json"), trains=False,
        target="cpu",
    )  # fmt: skip
    need = estimate.estimate_entry(query, entry, params)
    rows = torch.arange(ITEMS)
    inputs = ItemInputs(
        ITEMS, torch.ones(ITEMS, LENGTH, dtype=torch.long), rows,
        torch.zeros(ITEMS, SIDE, SIDE, 3, dtype=torch.uint8), rows,
    )  # fmt: skip
    with torch.inference_mode():
        peak = allocations.peak(lambda: model.encode_items(inputs, "query"))
    kept = allocations.of([*model.parameters(), *model.buffers(), inputs.images, inputs.texts])
    assert sum(need.phases["predict"].values()) == pytest.approx(kept + peak, rel=0.1)
    assert {"text tower", "vision tower", "activations"} <= need.phases["predict"].keys()


def test_the_cataloged_model_has_its_published_size_and_is_not_trained():
    entry = model_catalog.load("qwen3-vl-embedding-2b")
    params = Params(**entry.settings).model_dump(mode="json")
    query = MemoryQuery(
        engine="retrieval", model=entry.name, params=params, trains=False, capability=(8, 0)
    )
    need = estimate.estimate_memory(query)
    assert need.facts["parameters"] == "2,127,532,033, 1 trained"  # and the temperature
    with pytest.raises(EngineError, match="is evaluated, not trained; run it with --task evaluate"):
        estimate.estimate_memory(query.model_copy(update={"trains": True}))

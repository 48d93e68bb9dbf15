"""A real training step and a real evaluation of retrieval, and what they really allocate.

The oracle of the memory forecast: a folder that is loaded as a run loads it, the engine's own
batches, loss, optimizer and search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import pyarrow as pa
import torch

from engines import model_catalog
from engines.emitter import Emitter
from engines.memory_query import MemoryEstimate, MemoryQuery, Phase
from engines.model_catalog import ModelEntry
from engines.retrieval import Params, tasks
from engines.retrieval.data.items import ArrayItems, ItemStore, TokenItems
from engines.retrieval.data.pairs import ItemRows, PairCollator, TrainingPairs
from engines.retrieval.index import exact
from engines.retrieval.index.encoding import CorpusEncoder, VectorStorage
from engines.retrieval.index.indexes import ExactIndex
from engines.retrieval.index.joint_encoding import JointCorpusEncoder
from engines.retrieval.loss import OBJECTIVES
from engines.retrieval.memory import model_from_config
from engines.retrieval.models import factory, master_weights, tokenizer
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.frozen_towers import IMAGE_WIDTH, TEXT_WIDTH, HeadEncoder
from engines.retrieval.models.max_sim import score
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.memory import known_configs
from engines.torchkit.memory.fake_training_step import INPUTS
from engines.torchkit.runtime.distributed import ProcessGroup
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training.optimization import adamw
from engines.torchkit.training.weight_averaging import Ema
from tests.engines import allocations, families

PASSAGES = 1000
QUERIES = 600


@dataclass(frozen=True)
class Shape:
    """One thing to measure: a family's thin model or a cataloged one, and settings."""

    name: str
    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    phase: Phase = "train"
    target: Literal["cuda", "cpu"] = "cpu"

    def entry(self, folder: Path) -> ModelEntry:
        """The model, in a folder that is written now if it is not there."""
        if self.family == "frozen":
            return model_catalog.load("effnet-minilm")
        model = folder / "model"
        if not model.is_dir():
            model.mkdir(parents=True)
            families.FOLDERS.get(self.family, partial(published, self.family))(model)
        return model_catalog.load(f"path:{model}")

    def params(self, entry: ModelEntry) -> Params:
        """Settings of the run."""
        plain = {"precision": "fp32", "batch": 16, "eval_batch_size": 24}
        return Params(**{**entry.settings, **plain, **self.settings})

    def want(self, folder: Path) -> MemoryQuery:
        """The question to the memory estimate."""
        entry = self.entry(folder)
        return MemoryQuery(
            engine="retrieval", model=entry.name, params=self.params(entry).model_dump(mode="json"),
            trains=self.phase == "train", target=self.target, capability=(8, 6),
            subsets=(str(subset(folder)),),
        )  # fmt: skip


def published(name: str, folder: Path) -> None:
    """The folder of a cataloged CLIP, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    found = known_configs.find_config(model_catalog.load(name), model_from_config.SHAPES)
    assert found is not None
    families.words_file(folder, pad="<pad>", clip=True)
    CLIPModel(CLIPConfig.from_dict(found[0])).save_pretrained(folder)


def subset(folder: Path, *, pictures: bool = True) -> Path:
    """As much of a built subset as a forecast reads; every passage with a picture or none."""
    place = folder / "subset"
    place.mkdir(exist_ok=True, parents=True)
    asked, passages = ([str(n) for n in range(count)] for count in (QUERIES, PASSAGES))
    records = {"question": asked, "image_path": asked}
    shown = passages if pictures else [""] * PASSAGES
    corpus = {"passage_text": passages, "passage_image_path": shown}
    records |= {name: [[value] for value in values[:QUERIES]] for name, values in corpus.items()}
    for name, columns in (("records", records), ("corpus", corpus)):
        table = pa.table(columns)
        with pa.ipc.new_file(place / f"{name}.arrow", table.schema) as file:
            file.write_table(table)
    (place / "manifest.json").write_text('{"corpus_fingerprint": "1"}')
    return place


@dataclass(frozen=True)
class Bench:
    """A model as training finds it, and items as long as it takes them."""

    model: DualEncoder
    params: Params
    precision: Precision
    texts: ItemStore
    images: ItemStore

    @classmethod
    def of(cls, shape: Shape, folder: Path, device: torch.device) -> Bench:
        """Loaded as a run does."""
        entry = shape.entry(folder)
        params = shape.params(entry)
        precision = Precision(params.precision, device)
        if entry.family == "frozen-towers":
            model: DualEncoder = HeadEncoder(entry.architecture, params.temperature)
            factory.configure_model(model, entry, params, None)
            texts, images = (np.zeros((PASSAGES, w), np.float16) for w in (TEXT_WIDTH, IMAGE_WIDTH))
            return cls(
                model.to(device), params, precision, ArrayItems([texts]), ArrayItems([images])
            )
        words = tokenizer.load_model_tokenizer(folder / "model", entry.family)
        model = factory.from_folder(entry, folder / "model", words, params)
        factory.configure_model(model, entry, params, words)
        length = words.length or params.max_length
        flat = np.full(PASSAGES * length, 3, np.int32)
        tokens = TokenItems(flat, np.arange(PASSAGES + 1) * length, words.pad, words.length)
        side = params.image_size
        pixels = np.zeros((1, side, side, 3), np.uint8)
        places = np.zeros((PASSAGES, 2), np.int64)
        return cls(model.to(device), params, precision, tokens, ArrayItems([pixels], places))


def said(need: MemoryEstimate, shape: Shape) -> int:
    """What the forecast says of it, without inputs: on a CPU numpy makes those, and not torch."""
    parts = need.phases[shape.phase]
    inputs = 0 if shape.target == "cuda" else parts.get(INPUTS, 0)
    return sum(parts.values()) - inputs


def measured(shape: Shape, folder: Path) -> int:
    """Bytes of tensors that live at once, at most, in a step that is not the first."""
    bench = Bench.of(shape, folder, torch.device("cpu"))
    step, kept = _training(bench) if shape.phase == "train" else _predicting(bench, folder)
    step()
    return kept() + allocations.peak(step)


def measured_on_gpu(shape: Shape, folder: Path) -> int:
    """The same by torch's own count, which has cuBLAS's workspace in it."""
    bench = Bench.of(shape, folder, torch.device("cuda"))
    step, _ = _training(bench) if shape.phase == "train" else _predicting(bench, folder)
    step()
    return allocations.peak_on_gpu(step)


def _training(bench: Bench) -> tuple[allocations.Step, Callable[[], int]]:
    model, params, precision = bench.model, bench.params, bench.precision
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999), fused=True)
    ema = Ema(model, params.ema) if params.ema else None
    rows = np.arange(params.batch)
    side = ItemRows(rows, rows)
    pool = TrainingPairs(side, side, rows, np.arange(params.batch + 1))
    gather = PairCollator(pool, bench.texts, bench.images, seed=0)
    model.one_pass = precision.device.type == "cuda"
    replica = master_weights.make_replica(model, params, precision.name)
    computing = model if replica is None else replica.model.train()
    encode = (
        computing
        if replica is None
        else master_weights.without_autocast(computing, precision.device.type)
    )
    forward = tasks.make_forward(encode, OBJECTIVES[params.loss], ProcessGroup())
    model.train()

    def step() -> None:
        for _ in range(params.gradient_accumulation_steps):
            batch = to_device(gather(rows, 0), precision.device)
            with precision.autocast():
                outcome = forward(batch)
            outcome.loss.backward()
            if replica is not None:
                replica.collect_gradients()
        allocations.end_step(model, optimizer, ema)
        if replica is not None:
            replica.refresh()

    def kept() -> int:
        averaged = allocations.of(ema.tensors().values()) if ema else 0
        copied = allocations.of(replica.parameters()) if replica else 0
        return copied + _weights(model) + allocations.of_state(optimizer) + averaged

    return step, kept


def _weights(model: DualEncoder) -> int:
    return allocations.of((*model.parameters(), *model.buffers()))


def _predicting(bench: Bench, folder: Path) -> tuple[allocations.Step, Callable[[], int]]:
    """Encoding a corpus and queries, and searching, as `evaluate` does."""
    model, params = bench.model, bench.params
    room = VectorStorage(bench.precision.device, params.corpus_memory_gib, folder)
    kind = JointCorpusEncoder if model.joint else CorpusEncoder
    encoder = kind(model, bench.precision, params.eval_batch_size, Emitter(), room)
    passages, queries = (np.arange(n) for n in (PASSAGES, QUERIES))

    def step() -> None:
        encoded = encoder.encode(ItemRows(passages, passages), "passage", bench.texts, bench.images)
        vectors = encoded.fuse()
        del encoded
        index = ExactIndex(vectors, params.search_precision, score if model.late else None)
        asked = encoder.encode(ItemRows(queries, queries), "query", bench.texts, bench.images)
        # Sorted by torch, as on a GPU: what numpy takes is not in torch's count.
        with mock.patch.object(exact, "_uses_torch", return_value=True):
            index.search(asked.fuse(), params.search_depth)

    return step, lambda: _weights(model)

"""From a spec to data and model: builds subsets, decodes, tokenises, runs frozen towers, loads.

Each part is a phase of its own, so that a run's time to first step can be read apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets_mm.building import build
from datasets_mm.media.image_cache import ImageCache
from engines import model_catalog
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry
from engines.retrieval.context import Context
from engines.retrieval.data.dataset import (
    SearchCorpus,
    Split,
    Strings,
    read_corpus,
    read_pool,
    read_split,
)
from engines.retrieval.data.items import ArrayItems, Items, Rows, TokenItems
from engines.retrieval.data.pairs import NONE, Pool
from engines.retrieval.models import factory, frozen_towers
from engines.retrieval.models import tokenizer as models_tokenizer
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.tokenizer import Words
from engines.torchkit.data import subsets
from engines.torchkit.training import trained_model


@dataclass
class Data:
    """Everything that is read of the subsets."""

    subset: build.Subset
    pool: Pool
    splits: list[Split]
    corpora: list[SearchCorpus]
    strings: Strings

    def image_rows(self) -> list[Rows]:
        """Every array of image rows there is."""
        sides = [self.pool.queries, self.pool.positives, *(s.queries for s in self.splits)]
        return [side.images for side in (*sides, *(c.passages for c in self.corpora))]


@dataclass(frozen=True)
class Prepared:
    """A model and its inputs, ready to train or to evaluate."""

    model: DualEncoder
    texts: Items
    images: Items
    revision: str
    facts: dict[str, str]
    state: dict[str, Any] = field(default_factory=dict)
    """What a later run needs to build the same model."""
    base: Path | None = None
    """Folder of the model before training; None: it has none."""
    tokenizer: str = ""
    """A tokenizer that was built for this run, as JSON; empty: the model has its own."""
    pictures: str = ""
    """Digest of the contents of the training pictures."""

    def files(self) -> dict[str, str]:
        """What a checkpoint needs beside its tensors."""
        return {models_tokenizer.TOKENIZER: self.tokenizer} if self.tokenizer else {}


def read_data(run: Context) -> Data:
    """Build (or open) the subset and those that it is evaluated on.

    Raises:
        EngineError: a subset cannot be built.
    """
    spec, params, source, strings = run.spec, run.params, run.source, Strings()
    subset = source.built(spec.subset, run.emit)
    pool = read_pool(subset, strings, use_instruction=params.use_instruction)
    if not len(pool):
        raise EngineError(f"subset '{spec.subset}': no record has a positive passage")
    wanted = subset.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "evaluate" and not wanted:
        wanted = (spec.subset,)
    corpora: dict[str, SearchCorpus] = {}
    splits = []
    for name in wanted:
        if params.evaluate_on is None and (sentence := source.absent(name)):
            # The recipe would like it; only what a person named is a reason not to train.
            run.emit.notice("not-evaluated", sentence)
            continue
        other = source.built(name, run.emit)
        key = other.corpus.fingerprint
        if key not in corpora:
            corpora[key] = read_corpus(other, strings)
        splits.append(
            read_split(other, corpora[key], strings, use_instruction=params.use_instruction)
        )
    return Data(subset, pool, splits, list(corpora.values()), strings)


def decode_images(run: Context, data: Data) -> tuple[ArrayItems, str]:
    """The decoded images of all subsets, in the order of `strings.images`.

    And a digest of the contents of those that are trained on.
    Items whose picture cannot be read lose it: their rows become NONE.
    """
    size = run.params.image_size
    by_root: dict[str, list[tuple[int, str]]] = {}
    for row, name in enumerate(data.strings.images.values()):
        root, _, path = name.partition("\0")
        by_root.setdefault(root, []).append((row, path))
    pool = data.pool
    trained_on = set(np.concatenate([pool.queries.images, pool.positives.images]).tolist())
    contents: list[str] = []
    arrays, places = [], np.full((len(data.strings.images), 2), NONE, np.int64)
    for number, (root, named) in enumerate(by_root.items()):
        paths = [path for _, path in named]
        with subsets.explained():
            cache = ImageCache.open(paths, Path(root), size, run.cache_root, progress=run.say)
        arrays.append(cache.array)
        contents.append(cache.contents(path for row, path in named if row in trained_on))
        for row, path in named:
            places[row] = (number, cache.row(path))
        subsets.tell_skipped(run.emit, cache.skipped, "pictures")
    items = ArrayItems(arrays or [np.zeros((0, size, size, 3), np.uint8)], places)
    readable = np.append(items.readable(), False)  # the last one answers for NONE
    for rows in data.image_rows():
        rows[~readable[rows]] = NONE
    return items, " ".join(contents)


def prepare(run: Context, data: Data) -> Prepared:
    """The model of the spec, and texts and images as it takes them.

    Raises:
        EngineError: weights are missing, or settings do not fit the model.
    """
    if sentence := model_catalog.problem(run.entry):
        raise EngineError(sentence)
    run.emit.phase("cache", "images")
    images, contents = decode_images(run, data)
    run.emit.phase("cache", "texts")
    build_model = _frozen if run.entry.family == "frozen-towers" else _from_weights
    ready = build_model(run, data, images)
    if run.trained is not None:
        trained_model.check_base(run.trained, ready.state.get("base_weights", {}))
        trained_model.load(ready.model, run.trained)
    ready.facts.update(trained_model.facts(run))
    return replace(ready, pictures=contents)


def _from_weights(run: Context, data: Data, images: ArrayItems) -> Prepared:
    """A model with towers of its own: from a folder, from a checkpoint, or from scratch."""
    params, entry = run.params, run.entry
    folder = model_catalog.weights_folder(entry) if entry.hub or entry.path else None
    if folder is not None:
        words = models_tokenizer.of_model(folder, entry.family)
    elif run.trained is not None:
        words = models_tokenizer.plain(
            models_tokenizer.from_folder(run.trained.folder), "the model's own"
        )
    else:
        size = int(entry.architecture["vocabulary"])
        tokenizer = models_tokenizer.built(own_texts(data), size, run.cache_root)
        words = models_tokenizer.plain(tokenizer, "built from the subset and its corpus")
    items = tokenise(run, data.strings.texts.values(), words)
    run.team.pass_on()
    run.emit.phase("import", "open_clip" if entry.family == "open-clip" else "transformers")
    run.emit.phase("load", entry.name)
    if folder is None:
        model = factory.from_scratch(entry, words, params)
    else:
        model = factory.from_folder(entry, folder, words, params)
    factory.shape(model, entry, params, words)
    facts = factory.facts(model, params)
    facts |= {"tokenizer": words.said, "truncated_texts": _share(items)}
    own = words.tokenizer.to_str() if folder is None else ""
    state = {"base_weights": {"model": trained_model.base_print(run, folder)}}
    return Prepared(model, items, images, _revision(entry, folder), facts, state, folder, own)


def own_texts(data: Data) -> list[str]:
    """Texts of the subset and its corpus, not of what it is evaluated on, in a fixed order."""
    texts = data.strings.texts.values()
    rows = np.concatenate([data.pool.queries.texts, data.pool.positives.texts])
    seen = dict.fromkeys(texts[row] for row in np.unique(rows[rows != NONE]))
    return list(seen | dict.fromkeys(text for text in data.subset.corpus.texts if text))


def _frozen(run: Context, data: Data, images: ArrayItems) -> Prepared:
    entry = run.entry
    model = frozen_towers.HeadEncoder(entry.architecture, run.params.temperature)
    factory.shape(model, entry, run.params, None)
    facts = factory.facts(model, run.params)
    tower = frozen_towers.TextTower(model.text_layers, run.precision, run.pipeline)
    words = models_tokenizer.plain(models_tokenizer.from_folder(tower.folder), "the model's own")
    items = tokenise(run, data.strings.texts.values(), words)
    run.emit.phase("cache", "text features")
    texts = tower.features(items, run.cache_root, run.say)
    run.emit.phase("cache", "image features")
    pictures = frozen_towers.ImageTower(run.precision, run.pipeline).features(
        images, run.cache_root, run.say
    )
    run.team.pass_on()
    run.emit.phase("load", entry.name)
    facts |= {
        "truncated_texts": _share(items),
        "towers": "frozen, not among the parameters; features cached as float16",
    }
    return Prepared(model, texts, pictures, "packages", facts)


def tokenise(run: Context, texts: list[str], words: Words) -> TokenItems:
    """All texts as token ids; says how many were cut."""
    items = TokenItems.tokenise(texts, words.tokenizer, run.params.max_tokens, words.pad)
    items.length = words.length
    if items.truncated:
        run.emit.notice(
            "texts-truncated",
            f"{items.truncated} of {len(texts)} distinct texts were cut at "
            f"{run.params.max_tokens} tokens",
            items.truncated,
        )
    return items


def _share(items: TokenItems) -> str:
    return f"{items.truncated / max(1, len(items)):.1%} of {len(items)} distinct texts"


def _revision(entry: ModelEntry, folder: Path | None) -> str:
    if folder is None:
        return "from scratch"
    return model_catalog.revision(entry) if entry.hub else f"local {folder.name}"

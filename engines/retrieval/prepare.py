"""Preparation of data and model: builds subsets, decodes, tokenizes, runs frozen towers, loads.

Each part is a phase of its own, so that the time to first step can be attributed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets_mm.building import build
from datasets_mm.media.image_cache import ImageCache
from engines import model_catalog
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry
from engines.retrieval.context import Context
from engines.retrieval.data.dataset import (
    EvaluationSplit,
    SearchCorpus,
    Vocabularies,
    read_corpus,
    read_split,
    read_training_pairs,
)
from engines.retrieval.data.items import ArrayItems, ItemStore, Rows, TokenItems
from engines.retrieval.data.pairs import NONE, TrainingPairs
from engines.retrieval.models import factory, frozen_towers
from engines.retrieval.models import tokenizer as models_tokenizer
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.tokenizer import TextTokenizer
from engines.torchkit.data import subset_source
from engines.torchkit.modeling import model_tokenizer
from engines.torchkit.training import trained_model
from engines.torchkit.training.engine_task import PreparedModel


@dataclass
class RetrievalData:
    """Training pairs, evaluation splits and corpora of a run."""

    subset: build.Subset
    pairs: TrainingPairs
    splits: list[EvaluationSplit]
    corpora: list[SearchCorpus]
    vocabularies: Vocabularies

    def image_rows(self) -> list[Rows]:
        """The arrays of image rows of all queries and passages."""
        sides = [self.pairs.queries, self.pairs.positives, *(s.queries for s in self.splits)]
        return [side.images for side in (*sides, *(c.passages for c in self.corpora))]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training subset."""
        return self.subset.fingerprint

    @property
    def evaluated_samples(self) -> int:
        """Queries of all splits."""
        return sum(len(split.ids) for split in self.splits)


@dataclass(frozen=True, kw_only=True)
class PreparedEncoder(PreparedModel):
    """The model and its texts and images, ready to train or to evaluate."""

    model: DualEncoder
    texts: ItemStore
    images: ItemStore
    pretrained: Path | None = None
    """Folder of the model before training; None: it has none."""
    pictures: str = ""
    """Digest of the contents of the training pictures."""

    @property
    def tokenizer(self) -> str:
        """Tokenizer that was trained for this run, as JSON; empty: the model's own."""
        return self.files.get(model_tokenizer.TOKENIZER, "")


def read_data(run: Context) -> RetrievalData:
    """Build (or open) the training subset and the evaluation subsets.

    Raises:
        EngineError: a subset cannot be built.
    """
    spec, params, source, vocabularies = run.spec, run.params, run.source, Vocabularies()
    subset = source.build(spec.subset, run.emit)
    pairs = read_training_pairs(subset, vocabularies, use_instruction=params.use_instruction)
    if not len(pairs):
        raise EngineError(f"subset '{spec.subset}': no record has a positive passage")
    names = subset.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "evaluate" and not names:
        names = (spec.subset,)
    corpora: dict[str, SearchCorpus] = {}
    splits = []
    for name in names:
        if params.evaluate_on is None and (sentence := source.find_problem(name)):
            # Named by the recipe only; a missing subset is an error only if the user named it.
            run.emit.notice("not-evaluated", sentence)
            continue
        other = source.build(name, run.emit)
        key = other.corpus.fingerprint
        if key not in corpora:
            corpora[key] = read_corpus(other, vocabularies)
        splits.append(
            read_split(other, corpora[key], vocabularies, use_instruction=params.use_instruction)
        )
    return RetrievalData(subset, pairs, splits, list(corpora.values()), vocabularies)


def decode_images(run: Context, data: RetrievalData) -> tuple[ArrayItems, str]:
    """Decoded images of all subsets, in the order of `vocabularies.images`.

    Second result: digest of the contents of the training images. Rows of unreadable images become
    NONE in `data`.
    """
    size = run.params.image_size
    by_root: dict[str, list[tuple[int, str]]] = {}
    for row, name in enumerate(data.vocabularies.images.values()):
        root, _, path = name.partition("\0")
        by_root.setdefault(root, []).append((row, path))
    pairs = data.pairs
    trained_on = set(np.concatenate([pairs.queries.images, pairs.positives.images]).tolist())
    contents: list[str] = []
    arrays, positions = [], np.full((len(data.vocabularies.images), 2), NONE, np.int64)
    for number, (root, named) in enumerate(by_root.items()):
        paths = [path for _, path in named]
        with subset_source.source_errors_as_engine_errors():
            cache = ImageCache.open(
                paths, Path(root), size, run.cache_root, progress=run.report_progress
            )
        arrays.append(cache.array)
        contents.append(cache.contents(path for row, path in named if row in trained_on))
        for row, path in named:
            positions[row] = (number, cache.row(path))
        subset_source.report_skipped_media(run.emit, cache.skipped, "pictures")
    items = ArrayItems(arrays or [np.zeros((0, size, size, 3), np.uint8)], positions)
    readable = np.append(items.readable(), False)  # the last one is for NONE
    for rows in data.image_rows():
        rows[~readable[rows]] = NONE
    return items, " ".join(contents)


def prepare(run: Context, data: RetrievalData) -> PreparedEncoder:
    """Load the model of the spec, and prepare texts and images for it.

    Raises:
        EngineError: weights are missing, or settings do not fit the model.
    """
    if sentence := model_catalog.find_problem(run.entry):
        raise EngineError(sentence)
    run.emit.phase("cache", "images")
    images, contents = decode_images(run, data)
    run.emit.phase("cache", "texts")
    build_model = _from_frozen_towers if run.entry.family == "frozen-towers" else _from_weights
    return replace(build_model(run, data, images), pictures=contents)


def _from_weights(run: Context, data: RetrievalData, images: ArrayItems) -> PreparedEncoder:
    """A model with trainable towers: from a folder, from a checkpoint, or from scratch."""
    params, entry = run.params, run.entry
    folder = model_catalog.weights_folder(entry) if entry.hub or entry.path else None
    if folder is not None:
        text_tokenizer = models_tokenizer.load_model_tokenizer(folder, entry.family)
    elif run.trained is not None:
        text_tokenizer = models_tokenizer.make_text_tokenizer(
            model_tokenizer.from_folder(run.trained.folder), "the model's own"
        )
    else:
        size = int(entry.architecture["vocabulary"])
        tokenizer = models_tokenizer.get_or_train_tokenizer(
            collect_training_texts(data), size, run.cache_root
        )
        text_tokenizer = models_tokenizer.make_text_tokenizer(
            tokenizer, "built from the subset and its corpus"
        )
    items = tokenize_texts(run, data.vocabularies.texts.values(), text_tokenizer)
    run.process_group.release_other_ranks()
    run.emit.phase("import", "open_clip" if entry.family == "open-clip" else "transformers")
    run.emit.phase("load", entry.name)
    if folder is None:
        model = factory.from_scratch(entry, text_tokenizer, params)
    else:
        model = factory.from_folder(entry, folder, text_tokenizer, params)
    factory.configure_model(model, entry, params, text_tokenizer)
    facts = factory.describe_model(model, params)
    facts |= {"tokenizer": text_tokenizer.description, "truncated_texts": _truncated_share(items)}
    trained_tokenizer = {model_tokenizer.TOKENIZER: text_tokenizer.tokenizer.to_str()}
    return PreparedEncoder(
        model=model, texts=items, images=images, revision=_model_revision(entry, folder),
        facts=facts, state={"base_weights": {"model": trained_model.base_digest(run, folder)}},
        pretrained=folder, files=trained_tokenizer if folder is None else {},
    )  # fmt: skip


def collect_training_texts(data: RetrievalData) -> list[str]:
    """Distinct texts of the training subset and its corpus, in a fixed order."""
    texts = data.vocabularies.texts.values()
    rows = np.concatenate([data.pairs.queries.texts, data.pairs.positives.texts])
    distinct = dict.fromkeys(texts[row] for row in np.unique(rows[rows != NONE]))
    return list(distinct | dict.fromkeys(text for text in data.subset.corpus.texts if text))


def _from_frozen_towers(run: Context, data: RetrievalData, images: ArrayItems) -> PreparedEncoder:
    entry = run.entry
    model = frozen_towers.HeadEncoder(entry.architecture, run.params.temperature)
    factory.configure_model(model, entry, run.params, None)
    facts = factory.describe_model(model, run.params)
    tower = frozen_towers.MiniLMTower(model.text_layers, run.precision, run.pipeline)
    text_tokenizer = models_tokenizer.make_text_tokenizer(
        model_tokenizer.from_folder(tower.folder), "the model's own"
    )
    items = tokenize_texts(run, data.vocabularies.texts.values(), text_tokenizer)
    run.emit.phase("cache", "text features")
    texts = tower.features(items, run.cache_root, run.report_progress)
    run.emit.phase("cache", "image features")
    pictures = frozen_towers.EfficientNetTower(run.precision, run.pipeline).features(
        images, run.cache_root, run.report_progress
    )
    run.process_group.release_other_ranks()
    run.emit.phase("load", entry.name)
    facts |= {
        "truncated_texts": _truncated_share(items),
        "towers": "frozen, not among the parameters; features cached as float16",
    }
    return PreparedEncoder(
        model=model, texts=texts, images=pictures, revision="packages", facts=facts
    )


def tokenize_texts(run: Context, texts: list[str], text_tokenizer: TextTokenizer) -> TokenItems:
    """Token ids of all texts; sends a notice of truncated ones."""
    items = TokenItems.tokenize(
        texts, text_tokenizer.tokenizer, run.params.max_length, text_tokenizer.pad
    )
    items.length = text_tokenizer.length
    if items.truncated:
        run.emit.notice(
            "texts-truncated",
            f"{items.truncated} of {len(texts)} distinct texts were cut at "
            f"{run.params.max_length} tokens",
            items.truncated,
        )
    return items


def _truncated_share(items: TokenItems) -> str:
    return f"{items.truncated / max(1, len(items)):.1%} of {len(items)} distinct texts"


def _model_revision(entry: ModelEntry, folder: Path | None) -> str:
    if folder is None:
        return "from scratch"
    return model_catalog.cached_revision(entry) if entry.hub else f"local {folder.name}"

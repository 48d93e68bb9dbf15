"""What is ready on this machine for a new plan: subsets of a data folder, models of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from datasets_mm import catalog as subsets
from datasets_mm.recipes.recipe import PACKAGED, Recipe, RecipeError
from engines import catalog, model_catalog
from workbench.planning.plan import PlanError

OTHER_ENDINGS: Final = ("_val", "_test", "_heldout", "_base")
"""Of subsets that nobody trains on by choice."""
MAX_MODELS: Final = 3
"""Models of a new comparison."""


def list_training_subsets(data_root: Path | None) -> dict[str, list[str]]:
    """Engine -> subsets to train on that are complete in a folder, the smallest first.

    `data_root` None: subsets of installed packages.
    """
    engines = {catalog.load(name).FORM: name for name in catalog.names()}
    names: dict[str, list[str]] = {}
    for chain in sorted(_usable_chains(data_root), key=_expected_rows):
        engine = engines[subsets.root_source(chain).form]
        names.setdefault(engine, []).append(chain[-1].name)
    return names


def _usable_chains(data_root: Path | None) -> Iterator[list[Recipe]]:
    """Lineages of the subsets that are complete in the folder, or that come from packages."""
    for name in subsets.names():
        if name.endswith(OTHER_ENDINGS):
            continue
        try:
            chain = subsets.lineage(name)
        except RecipeError:
            continue  # `workbench data list` says what is wrong with it
        source = subsets.root_source(chain)
        whole = source.adapter in PACKAGED and chain[-1].source is not None
        if whole or bool(source.uri) != (data_root is not None):
            continue
        if subsets.find_problem(name, data_root) is None:
            yield chain


def _expected_rows(chain: list[Recipe]) -> tuple[int, str]:
    return subsets.expected_rows(chain) or 0, chain[-1].name


def list_ready_models(engine: str, *, pretrained_first: bool) -> list[str]:
    """Models of an engine whose weights and packages are here.

    `pretrained_first`: those of the hub before those that start from scratch, for a GPU.
    """
    entries = [model_catalog.load(name) for name in model_catalog.names(engine)]
    ready = [entry for entry in entries if model_catalog.find_problem(entry) is None]
    ready.sort(key=lambda entry: bool(entry.hub or entry.path) != pretrained_first)
    return [entry.name for entry in ready]


def refuse_missing_demo() -> NoReturn:
    """Say how to get data where there are none.

    Raises:
        PlanError: always.
    """
    raise PlanError(
        [
            "the demo's data are not installed; run: pip install 'workbench-mm[demo]', or name a "
            "folder with --data"
        ]
    )


def refuse_empty_folder(data_root: Path) -> NoReturn:
    """Say what was looked for in a folder in which no subset is complete.

    Raises:
        PlanError: always.
    """
    problems = [
        f"{data_root}: no subset is complete there; it may hold M2KR (jsonl/m2kr/ or *_data/), a "
        "challenge (train.csv, test.csv) or AI-Hub's labels (train/labels/)",
        "data of your own need a recipe first: docs/howto.md",
    ]
    raise PlanError(problems)

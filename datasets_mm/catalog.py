"""The list of subsets: shipped recipes and the user's own, found by name.

The light door of this room: what the workbench may import. Nothing here loads data.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_mm import strict_toml
from datasets_mm.recipes.recipe import Form, Recipe, RecipeError, Source, Step, read
from datasets_mm.sources import location
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.strict_toml import nearest

SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class SubsetSummary:
    """One line of the subset list."""

    name: str
    title: str
    rows: int | None
    """Records of the built subset; None: not built yet."""
    corpus_rows: int | None
    built: bool
    evaluate_on: tuple[str, ...]
    license: tuple[str, ...]
    notes: str
    expected_rows: int | None = None
    """What the recipe says it should have."""
    folder: Path | None = None
    """Where it is built."""
    form: Form = "passages"


def user_recipes() -> Path:
    """The user's own recipes. `WORKBENCH_CONFIG` moves the folder, as it does for models."""
    if override := os.environ.get("WORKBENCH_CONFIG"):
        return Path(override).expanduser() / "recipes"
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "workbench" / "recipes"


def _files() -> dict[str, Path]:
    """Name -> file. A user's recipe with a shipped name is an error, not an override."""
    shipped = {path.stem: path for path in strict_toml.files(SHIPPED)}
    own = {path.stem: path for path in strict_toml.files(user_recipes())}
    if clash := sorted(shipped.keys() & own.keys()):
        raise RecipeError(
            [f"{own[name]}: {name!r} is the name of a shipped subset; rename it" for name in clash]
        )
    return shipped | own


def names() -> list[str]:
    """Every subset, in alphabetical order."""
    return sorted(_files())


def load(name: str) -> Recipe:
    """The recipe called `name`; RecipeError lists all its problems, or the nearest name."""
    files = _files()
    if name not in files:
        raise RecipeError([f"subset {name!r} is unknown{nearest(name, files)}"])
    return read(files[name])


def lineage(name: str) -> list[Recipe]:
    """The recipe and those it derives from, the one with the source first."""
    chain = [load(name)]
    while (parent := chain[-1].derive) is not None:
        if any(parent == recipe.name for recipe in chain):
            loop = " -> ".join([*(recipe.name for recipe in chain), parent])
            raise RecipeError([f"subset {name!r}: derive runs in a circle ({loop}); break it"])
        try:
            chain.append(load(parent))
        except RecipeError as error:
            raise RecipeError(
                [f"subset {chain[-1].name!r}: derive: {one}" for one in error.problems]
            ) from None
    return chain[::-1]


def origin(chain: list[Recipe]) -> Source:
    """The source at the root of a lineage."""
    assert chain[0].source is not None  # noqa: S101 - Recipe demands a source or a parent
    return chain[0].source


def form(name: str) -> Form:
    """What belongs to the pictures of the subset called `name`: says which engine it is for.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    return origin(lineage(name)).form


def all_steps(chain: list[Recipe]) -> list[Step]:
    """Steps of the whole lineage, in the order in which they apply."""
    return [step for recipe in chain for step in recipe.steps]


def recipe_digest(chain: list[Recipe]) -> str:
    """Identity of what the lineage asks for, without looking at the data."""
    return "-".join(recipe.digest()[:8] for recipe in chain)


def expected_rows(chain: list[Recipe], origin: Source | None = None) -> int | None:
    """What the recipe, or the layout that was found, says that the subset should have."""
    leaf = chain[-1]
    if leaf.expected_rows is not None or leaf.source is None or leaf.steps:
        return leaf.expected_rows
    return (origin or leaf.source).expected_rows


def problem(name: str, data_root: Path | None, image_root: str = "") -> str | None:
    """Pre-flight: why this subset cannot be built, with the remedy; None: nothing found."""
    try:
        chain = lineage(name)
        for other in chain[-1].evaluate_on:
            load(other)
        _known_data_sets(image_root)
        location.locate(chain[0], data_root, image_root)
    except RecipeError as error:
        return error.problems[0]
    except SourceError as error:
        return f"subset {name!r}: {error}"
    return None


def _known_data_sets(image_root: str) -> None:
    """A typo in the name of a data set would quietly send all its pictures elsewhere."""
    named = location.read_image_roots(image_root).keys() - {""}
    if not named:
        return
    known = {source.dataset for other in names() for source in load(other).sources} - {""}
    for one in sorted(named - known):
        raise SourceError(f"image_root names the data set {one!r}{nearest(one, known)}")


def summary(name: str, cache_root: Path) -> SubsetSummary:
    """What is known of the subset without building it."""
    chain = lineage(name)
    recipe = chain[-1]
    folder, manifest = _built(name, recipe_digest(chain), cache_root)
    return SubsetSummary(
        name=name,
        title=recipe.title,
        rows=manifest.get("rows"),
        corpus_rows=manifest.get("corpus_rows"),
        built=folder is not None,
        evaluate_on=recipe.evaluate_on,
        license=origin(chain).licences,
        notes=recipe.notes,
        expected_rows=expected_rows(chain),
        folder=folder,
        form=origin(chain).form,
    )


def _built(name: str, digest: str, cache_root: Path) -> tuple[Path | None, dict[str, Any]]:
    """The newest finished build of this recipe."""
    found = []
    for path in (cache_root / "subsets").glob(f"{name}-*/manifest.json"):
        try:
            manifest = json.loads(path.read_text("utf-8"))
            if manifest["name"] == name and manifest["recipe"] == digest:
                found.append((path.stat().st_mtime_ns, path.parent, manifest))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not found:
        return None, {}
    _, folder, manifest = max(found, key=lambda item: item[0])
    return folder, manifest

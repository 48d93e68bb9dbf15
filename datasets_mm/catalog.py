"""The catalog of subsets: shipped recipes and the user's own, by name.

Loads no data and no heavy package, so that the workbench may import it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets_mm import strict_toml
from datasets_mm.recipes.recipe import Form, Recipe, RecipeError, Source, Step, read
from datasets_mm.sources import location
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.strict_toml import FileSignature, suggest_nearest

SHIPPED = Path(__file__).parent / "recipes"
DATA_ROOT = "data_root"
"""File beside a build's manifest: the folder of the data that it was last built from."""


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
    """Expected records, by the recipe."""
    folder: Path | None = None
    """Where it is built."""
    form: Form = "passages"
    data_root: str = ""
    """Folder of the data that it was last built from; empty: packages, or built before it was
    kept."""

    @property
    def is_partial(self) -> bool:
        """Whether the build has other records than the recipe expects: those of a small copy."""
        return None not in (self.rows, self.expected_rows) and self.rows != self.expected_rows


def user_recipes() -> Path:
    """The user's own recipes. `WORKBENCH_CONFIG` moves the folder, as it does for models."""
    if override := os.environ.get("WORKBENCH_CONFIG"):
        return Path(override).expanduser() / "recipes"
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "workbench" / "recipes"


def _recipe_files() -> dict[str, Path]:
    """Name -> file. A user's recipe with a shipped name is an error, not an override."""
    shipped = {path.stem: path for path in strict_toml.list_files(SHIPPED)}
    user = {path.stem: path for path in strict_toml.list_files(user_recipes())}
    if clash := sorted(shipped.keys() & user.keys()):
        raise RecipeError(
            [f"{user[name]}: {name!r} is the name of a shipped subset; rename it" for name in clash]
        )
    return shipped | user


def names() -> list[str]:
    """Every subset, in alphabetical order."""
    return sorted(_recipe_files())


def load(name: str) -> Recipe:
    """The recipe called `name`; RecipeError lists all its problems, or the nearest name."""
    files = _recipe_files()
    if name not in files:
        raise RecipeError([f"subset {name!r} is unknown{suggest_nearest(name, files)}"])
    return _read_recipe(files[name], strict_toml.sign_file(files[name]))


@lru_cache(maxsize=256)
def _read_recipe(path: Path, _: FileSignature) -> Recipe:
    return read(path)


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
                [f"subset {chain[-1].name!r}: derive: {sentence}" for sentence in error.problems]
            ) from None
    return chain[::-1]


def root_source(chain: list[Recipe]) -> Source:
    """The source at the root of a lineage."""
    assert chain[0].source is not None  # noqa: S101 - Recipe demands a source or a parent
    return chain[0].source


def subset_form(name: str) -> Form:
    """Form of the records of subset `name`, which decides the engines that can use it.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    return root_source(lineage(name)).form


def all_steps(chain: list[Recipe]) -> list[Step]:
    """Steps of the whole lineage, in the order in which they apply."""
    return [step for recipe in chain for step in recipe.steps]


def recipe_digest(chain: list[Recipe]) -> str:
    """Identity of a lineage's recipes, without reading the data."""
    return "-".join(recipe.digest()[:8] for recipe in chain)


def expected_rows(chain: list[Recipe], source: Source | None = None) -> int | None:
    """Number of records expected by the recipe, or by the layout that was found."""
    leaf = chain[-1]
    if leaf.expected_rows is not None or leaf.source is None or leaf.steps:
        return leaf.expected_rows
    return (source or leaf.source).expected_rows


def find_problem(name: str, data_root: Path | None, image_root: str = "") -> str | None:
    """Pre-flight: why this subset cannot be built, with the remedy; None: nothing found."""
    try:
        chain = lineage(name)
        for other in chain[-1].evaluate_on:
            load(other)
        _check_data_set_names(image_root)
        location.locate(chain[0], data_root, image_root)
    except RecipeError as error:
        return error.problems[0]
    except SourceError as error:
        return f"subset {name!r}: {error}"
    return None


def _check_data_set_names(image_root: str) -> None:
    """Reject unknown data sets in image_root: a typo would silently use another folder."""
    data_sets = location.read_image_roots(image_root).keys() - {""}
    if not data_sets:
        return
    sources = (source for other in names() for source in load(other).sources)
    recipe_data_sets = {source.dataset for source in sources if source.dataset}
    for data_set in sorted(data_sets - recipe_data_sets):
        suggestion = suggest_nearest(data_set, recipe_data_sets)
        raise SourceError(f"image_root names the data set {data_set!r}{suggestion}")


def summary(name: str, cache_root: Path) -> SubsetSummary:
    """Summary of a subset, without building it."""
    chain = lineage(name)
    recipe = chain[-1]
    folder, manifest = _find_build(name, recipe_digest(chain), cache_root)
    return SubsetSummary(
        name=name,
        title=recipe.title,
        rows=manifest.get("rows"),
        corpus_rows=manifest.get("corpus_rows"),
        built=folder is not None,
        evaluate_on=recipe.evaluate_on,
        license=root_source(chain).licences,
        notes=recipe.notes,
        expected_rows=expected_rows(chain),
        folder=folder,
        form=root_source(chain).form,
        data_root=_read_data_root(folder),
    )


def _read_data_root(folder: Path | None) -> str:
    try:
        return os.fsdecode((folder / DATA_ROOT).read_bytes()) if folder else ""
    except OSError:
        return ""


def _find_build(name: str, digest: str, cache_root: Path) -> tuple[Path | None, dict[str, Any]]:
    """The newest finished build of this recipe."""
    builds = []
    for path in (cache_root / "subsets").glob(f"{name}-*/manifest.json"):
        try:
            manifest = json.loads(path.read_text("utf-8"))
            if manifest["name"] == name and manifest["recipe"] == digest:
                builds.append((path.stat().st_mtime_ns, path.parent, manifest))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not builds:
        return None, {}
    _, folder, manifest = max(builds, key=lambda item: item[0])
    return folder, manifest

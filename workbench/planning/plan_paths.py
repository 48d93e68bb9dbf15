"""Resolution of the paths in a plan to absolute paths.

A suite is resumed, and its plan repeated, from other folders than the one where it was typed.
Presets and settings may name paths relative to the current folder, with `~`, or as `path:DIR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from engines.trained_weights import PATH_PREFIX
from workbench import paths

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan
    from workbench.planning.search_space import SearchPlan

PATH_SETTINGS: Final = ("data_root", "sample_submission", "paraphrases")


def resolve_paths(plan: SuitePlan) -> SuitePlan:
    """The same plan with every path absolute."""
    return plan.model_copy(
        update={
            "models": tuple(map(_resolve_model, plan.models)),
            "settings": _resolve_settings(plan.settings),
            "runs": tuple(
                block.model_copy(
                    update={
                        "models": tuple(map(_resolve_model, block.models)),
                        "settings": _resolve_settings(block.settings),
                    }
                )
                for block in plan.runs
            ),
            "variants": tuple(
                variant.model_copy(update={"settings": _resolve_settings(variant.settings)})
                for variant in plan.variants
            ),
            "overrides": tuple(
                override.model_copy(
                    update={
                        "settings": _resolve_settings(override.settings),
                        "model": override.model and _resolve_model(override.model),
                    }
                )
                for override in plan.overrides
            ),
            "exclusions": tuple(
                exclusion.model_copy(
                    update={"model": exclusion.model and _resolve_model(exclusion.model)}
                )
                for exclusion in plan.exclusions
            ),
            "search": plan.search and _resolve_search(plan.search),
        }
    )


def _resolve_search(search: SearchPlan) -> SearchPlan:
    ranges = {
        name: values.model_copy(update={"choices": _resolve_setting(name, values.choices)})
        for name, values in search.ranges.items()
    }
    return search.model_copy(update={"ranges": ranges})


def _resolve_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _resolve_setting(name, value) for name, value in settings.items()}


def _resolve_setting(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_resolve_setting(name, element) for element in value)
    if not isinstance(value, str) or not value:
        return value
    if name == "image_root":
        return ",".join(map(_resolve_image_root, value.split(",")))
    if name in PATH_SETTINGS:
        return str(paths.resolve(value.strip()))  # blanks, and the line ends of Windows
    return _resolve_model(value)


def _resolve_image_root(part: str) -> str:
    """One part of `oven=/a,evqa=/b,/others`; a `=` behind a slash belongs to the folder's name."""
    name, equals, folder = part.strip().partition("=")
    if equals and "/" not in name:
        return f"{name}={paths.resolve(folder.strip())}" if folder.strip() else part
    return str(paths.resolve(part.strip())) if part.strip() else part


def _resolve_model(name: str) -> str:
    folder = name.removeprefix(PATH_PREFIX)
    return f"{PATH_PREFIX}{paths.resolve(folder)}" if name != folder and folder else name

"""Profiles of subsets and files, computed by a child process.

The child is `python -m datasets_mm.profile.describe`; it prints JSON lines: progress, then the
profile. It loads libraries that the workbench must not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import paths
from workbench.processes.json_child import run_child

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile

ProgressCallback = Callable[[int, int, str], None]


class ProfileError(Exception):
    """No profile could be computed; one sentence with place and remedy."""


@dataclass(frozen=True)
class ProfileRequest:
    """A profile request: the target and the options of the scan."""

    target: str
    data_root: Path | None = None
    image_root: str = ""
    tokenizer: Path | None = None
    context: int | None = None
    exact: bool = False
    sample: int | None = None
    seed: int = 0
    fresh: bool = False
    cached: bool = False
    """Only a profile that is there: scan nothing."""

    def command(self) -> list[str]:
        """The child's command line."""
        options = {
            "--data-root": self.data_root,
            "--image-root": self.image_root or None,
            "--tokenizer": self.tokenizer,
            "--context": self.context,
            "--sample": self.sample,
        }
        arguments = [part for name, value in options.items() if value is not None
                 for part in (name, str(value))]  # fmt: skip
        switches = [f"--{name}" for name in ("exact", "fresh", "cached") if getattr(self, name)]
        module = [sys.executable, "-m", "datasets_mm.profile.describe"]
        fixed = ["--cache-root", str(paths.cache_root()), "--seed", str(self.seed)]
        return [*module, *fixed, *arguments, *switches, "--", self.target]


def make_profile(request: ProfileRequest, on_progress: ProgressCallback) -> Profile:
    """Compute the profile of a target; `on_progress` gets (done, total, unit).

    Raises:
        ProfileError: it cannot be computed.
    """
    from datasets_mm.profile.profile import Profile

    if request.cached and not _is_built(request.target):
        raise ProfileError(f"'{request.target}' was not described; `workbench data describe` does")
    profiles: list[Profile] = []

    def handle_message(message: dict[str, Any]) -> None:
        match message.get("kind"):
            case "progress":
                on_progress(message["done"], message["total"], message["unit"])
            case "failed":
                raise ProfileError(str(message["error"]))
            case "done":
                profiles.append(Profile.model_validate(message["profile"]))

    code = run_child(request.command(), handle_message)
    if not profiles:
        raise ProfileError(f"{request.target}: the scan ended with code {code}")
    return profiles[-1]


def _is_built(target: str) -> bool:
    """Whether a target is a built subset, or a file: what is not built was never described."""
    from datasets_mm import catalog
    from datasets_mm.recipes.recipe import RecipeError

    try:
        if target not in catalog.names():
            return True
        return catalog.summary(target, paths.cache_root()).folder is not None
    except RecipeError:
        return True  # the child says what is wrong with it


def find_tokenizer(name: str) -> tuple[Path | None, int]:
    """(folder of the tokenizer, context in tokens) of a cataloged model or a `path:` one.

    Raises:
        ProfileError: the model is unknown, or has no tokenizer here.
    """
    from engines import model_catalog

    try:
        entry = model_catalog.load(name)
    except (LookupError, ValueError) as error:
        raise ProfileError(str(error)) from None
    context = int(entry.settings.get("max_length", 77))
    folder = model_catalog.weights_folder(entry) if entry.hub or entry.path else None
    if folder is not None and (folder / "tokenizer.json").is_file():
        return folder, context
    if entry.family in ("clip", "open-clip"):
        return None, context  # these share CLIP's vocabulary
    raise ProfileError(
        f"model '{name}' has no tokenizer of its own before training; "
        "leave --model out for CLIP's, or name a folder as path:/abs/dir"
    )

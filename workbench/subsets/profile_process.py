"""Profiles of subsets and files, made by a child that may load what this process must not.

The child is `python -m datasets_mm.profile.describe`; it prints JSON lines: progress, then the
profile.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import paths

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile

Say = Callable[[int, int, str], None]


class ProfileError(Exception):
    """No profile could be made; one sentence with place and remedy."""


@dataclass(frozen=True)
class Wanted:
    """What to look at, and how closely."""

    target: str
    data_root: Path | None = None
    image_root: str = ""
    tokenizer: Path | None = None
    context: int | None = None
    exact: bool = False
    sample: int | None = None
    seed: int = 0
    fresh: bool = False

    def command(self) -> list[str]:
        """The child's command line."""
        options = {
            "--data-root": self.data_root,
            "--image-root": self.image_root or None,
            "--tokenizer": self.tokenizer,
            "--context": self.context,
            "--sample": self.sample,
        }
        given = [part for name, value in options.items() if value is not None
                 for part in (name, str(value))]  # fmt: skip
        switches = [f"--{name}" for name in ("exact", "fresh") if getattr(self, name)]
        module = [sys.executable, "-m", "datasets_mm.profile.describe"]
        fixed = ["--cache-root", str(paths.cache_root()), "--seed", str(self.seed)]
        return [*module, *fixed, *given, *switches, "--", self.target]


def make(wanted: Wanted, say: Say) -> Profile:
    """The profile of a target.

    Raises:
        ProfileError: it cannot be made.
    """
    with subprocess.Popen(
        wanted.command(), stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as child:
        try:
            found = [p for line in child.stdout or () if (p := heard(line, say))]
        except BaseException:
            child.terminate()
            raise
    if not found:
        raise ProfileError(f"{wanted.target}: the scan ended with code {child.returncode}")
    return found[-1]


def heard(line: str, say: Say) -> Profile | None:
    """What one line of the child says; the profile, if it is that.

    Raises:
        ProfileError: the child says why there will be none.
    """
    from datasets_mm.profile.profile import Profile

    try:
        said = json.loads(line)
    except ValueError:
        return None
    match said.get("kind"):
        case "progress":
            say(said["done"], said["total"], said["unit"])
        case "failed":
            raise ProfileError(str(said["error"]))
        case "done":
            return Profile.model_validate(said["profile"])
    return None


def model_measure(name: str) -> tuple[Path | None, int]:
    """(folder of the tokenizer, context in tokens) of a catalogued model or a `path:` one.

    Raises:
        ProfileError: the model is unknown, or has no tokenizer here.
    """
    from engines import model_catalog

    try:
        entry = model_catalog.load(name)
    except (LookupError, ValueError) as error:
        raise ProfileError(str(error)) from None
    context = int(entry.settings.get("max_tokens", 77))
    folder = model_catalog.weights_folder(entry) if entry.hub or entry.path else None
    if folder is not None and (folder / "tokenizer.json").is_file():
        return folder, context
    if entry.family in ("clip", "open-clip"):
        return None, context  # these share CLIP's vocabulary
    raise ProfileError(
        f"model '{name}' has no tokenizer of its own before training; "
        "leave --model out for CLIP's, or name a folder as path:/abs/dir"
    )

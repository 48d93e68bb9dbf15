"""Downloads of data from the Hugging Face hub into its standard cache.

huggingface_hub is imported only here, when a download was requested. Downloads resume; only the
files that the recipe names are fetched.
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

from datasets_mm import catalog
from datasets_mm.child_messages import Progress
from datasets_mm.recipes.recipe import Source
from datasets_mm.sources import hub_cache
from datasets_mm.sources.fingerprint import SourceError


def download_subset(name: str, progress: Progress) -> None:
    """Download the files of a subset into the hub's local cache.

    Raises:
        RecipeError: there is no such subset.
        SourceError: its files cannot be downloaded; one sentence with the remedy.
    """
    sources = [source for source in catalog.lineage(name)[0].sources if source.hub]
    if not sources:
        raise SourceError("its recipe names no hub repository to download from")
    _download_snapshot(sources[0], progress)


def _download_snapshot(source: Source, progress: Progress) -> Path:
    """The snapshot with the records and passages of this source, fetched where needed.

    Raises:
        SourceError: it cannot be downloaded; one sentence with the remedy.
    """
    from huggingface_hub import errors, snapshot_download

    revision = source.revision or "main"
    try:
        folder = snapshot_download(
            source.hub,
            repo_type="dataset",
            revision=revision,
            cache_dir=hub_cache.cache_folder(),
            allow_patterns=[*source.uri, *source.passages],
            tqdm_class=_progress_bar_class(progress),
        )
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise SourceError(
            f"{source.hub} at {revision} cannot be downloaded ({reason}); "
            f"{_find_remedy(error, source.hub)}, or give --set data_root=…"
        ) from None
    return Path(folder)


def _find_remedy(error: Exception, repository: str) -> str:
    from huggingface_hub import errors

    log_in = "log in with `hf auth login` or HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"accept its terms at https://huggingface.co/datasets/{repository} and {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"check the name, `hub` in the recipe; if the repository is private, {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "check `revision` in the recipe"
    if isinstance(error, errors.HFValidationError):
        return "`hub` in the recipe is no owner/name"
    return "try again where the hub can be reached (it goes on where it stopped)"


def _progress_bar_class(progress: Progress) -> Any:
    """A class that huggingface_hub can use as its progress bar; it draws nothing.

    There is a bar for bytes received and one for bytes written; the larger count is reported.
    """
    base = importlib.import_module("tqdm.auto").tqdm
    reported = 0

    class ProgressBar(base):  # type: ignore[misc,valid-type]  # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> bool:
            nonlocal reported
            if self.unit == "B" and self.total and self.n > reported:
                reported = int(self.n)
                progress(reported, int(max(self.total, self.n)), "bytes")
            return True

    return ProgressBar

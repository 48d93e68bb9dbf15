"""What was seen at the ends of epochs, the best weights so far, and whether to stop early.

Apart from what an engine looks at. It lies beside the checkpoints, so that a resumed run stops
where it would have stopped.
"""

from __future__ import annotations

import json
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from engines.emitter import Emitter
from engines.torchkit import checkpoints, loop
from engines.torchkit.context import Context

BEST: Final = "best"
SEEN: Final = "epochs.json"


class Looks:
    """The looks of one run, kept in `root`."""

    def __init__(self, root: Path, model: nn.Module, emit: Emitter) -> None:
        self._root = root
        self._model = model
        self._emit = emit

    def add(self, epoch: int, loss: float, **others: float) -> list[dict[str, float]]:
        """Keep what was seen after epoch number `epoch` (from 1); all looks so far."""
        seen = [one for one in self._read() if one["epoch"] < epoch]
        seen.append({"epoch": epoch, "loss": loss, **others})
        self._root.mkdir(exist_ok=True, mode=0o700)
        (self._root / SEEN).write_text(json.dumps(seen), encoding="utf-8")
        return seen

    def judge(self, seen: Sequence[dict[str, float]], patience: int, min_delta: float) -> bool:
        """Keep the weights as they are if they are the best; whether patience has run out."""
        best, since = judged([one["loss"] for one in seen], min_delta)
        if not since:
            tensors = {"model": loop.trainable_tensors(self._model)}
            checkpoints.save(self._root / BEST, tensors, {"epoch": seen[-1]["epoch"]})
        if since < patience:
            return False
        self._emit.notice(
            "stopped-early",
            f"the validation loss has not fallen for {since} looks; the weights of epoch "
            f"{seen[best]['epoch']} (loss {seen[best]['loss']:.3f}) are kept",
        )
        return True

    def restore(self) -> bool:
        """Put the best weights back into the model, then forget them; False: none were kept."""
        folder = self._root / BEST
        if not (folder / checkpoints.STATE).is_file():
            return False
        groups, _ = checkpoints.load(folder, next(self._model.parameters()).device)
        self._model.load_state_dict(groups["model"], strict=False)
        shutil.rmtree(folder)
        return True

    def _read(self) -> list[dict[str, float]]:
        try:
            found: list[dict[str, float]] = json.loads((self._root / SEEN).read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return found


class Watch:
    """Looks at the model at the ends of epochs; what it looks at is its engine's."""

    def __init__(self, context: Context[Any], model: nn.Module, every: int) -> None:
        """`every`: epochs between two looks; 0: none."""
        self._run = context
        self._every = every
        self._looks = Looks(context.run_dir / "checkpoints", model, context.emit)
        self.latest: dict[str, Tensor] = {}
        """What was seen last, for the curves."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look at between epochs."""
        return self._every > 0

    def after_epoch(self, epoch: int) -> bool:
        """After epoch number `epoch` (from 1): look, and say whether training should end.

        Among several ranks the leader looks, and the others hear what came of it.
        """
        if epoch % self._every:
            return False
        team = self._run.team
        return team.follow(team.leads and self._between(epoch))

    @abstractmethod
    def look(self, epoch: int) -> bool:
        """Look, and say whether training should end."""

    def _between(self, epoch: int) -> bool:
        """A look that leaves the random numbers of the training alone."""
        self._run.emit.phase("eval", f"after epoch {epoch}")
        state = checkpoints.random_state()
        try:
            ends = self.look(epoch)
        finally:
            checkpoints.set_random_state(state)
        self._run.emit.phase("train")
        return ends


def judged(losses: Sequence[float], min_delta: float) -> tuple[int, int]:
    """Place of the best loss, and how many came after it; better by `min_delta` at least."""
    best = 0
    for place, loss in enumerate(losses):
        if loss < losses[best] - min_delta:
            best = place
    return best, len(losses) - 1 - best


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients; training goes on as if nothing had been."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)

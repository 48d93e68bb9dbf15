"""Run context of the retrieval engine."""

from __future__ import annotations

from engines.retrieval.params import Params
from engines.torchkit.runtime import context

Context = context.Context[Params]

"""What every part of a captioning run is handed."""

from __future__ import annotations

from engines.captioning.params import Params
from engines.torchkit.runtime import context

Context = context.Context[Params]

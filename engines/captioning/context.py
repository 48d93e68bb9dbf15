"""The context of a captioning run: spec, settings, device and emitter, for all of its modules."""

from __future__ import annotations

from engines.captioning.params import Params
from engines.torchkit.runtime import context

Context = context.Context[Params]

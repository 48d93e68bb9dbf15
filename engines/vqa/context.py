"""The context of a VQA run: spec, settings, device and emitter, for all of its modules."""

from __future__ import annotations

from engines.torchkit.runtime import context
from engines.vqa.params import Params

Context = context.Context[Params]

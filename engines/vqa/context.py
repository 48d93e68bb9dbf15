"""What every part of a VQA run is handed."""

from __future__ import annotations

from engines.torchkit.runtime import context
from engines.vqa.params import Params

Context = context.Context[Params]

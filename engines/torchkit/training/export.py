"""Export of trained weights in the layout of another library, beside the checkpoint."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from engines import trained_weights
from engines.model_catalog import ModelEntry, ModelPart
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.runtime.context import Context
from engines.torchkit.training import trained_model

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"


def write_export(
    run: Context[Any],
    name: str,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
) -> None:
    """Write `checkpoints/<name>` with these files; sends them as artifacts of role `name`."""
    folder = run.run_dir / trained_weights.CHECKPOINTS / name
    trained_model.send_artifacts(run, checkpoints.write_folder(folder, tensors, texts), name)


def write_adapter(run: Context[Any], model: Any, base: ModelEntry | ModelPart) -> None:
    """Write the LoRA adapters of a PEFT model for `PeftModel.from_pretrained`.

    `base`: the adapted model, for the configuration: a repository, a folder, or `../base` beside
    the adapters.
    """
    from peft import get_peft_model_state_dict

    config = copy(model.peft_config["default"])
    config.inference_mode = True
    config.base_model_name_or_path = base.hub or base.path or f"../{trained_weights.BASE}"
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        settings = json.loads((Path(folder) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    write_export(run, trained_weights.ADAPTER, {ADAPTER_WEIGHTS: tensors}, {ADAPTER_CONFIG: text})


def adapter_bytes(model: nn.Module) -> int:
    """Bytes of the LoRA weights of a model."""
    named = model.named_parameters()
    return sum(p.numel() * p.element_size() for name, p in named if ".lora_" in name)

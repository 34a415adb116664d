"""How an embedding model makes one vector of many, as its checkpoint says."""

from __future__ import annotations

from typing import Any

import gguf

from registry.convert.checkpoint import Checkpoint
from registry.errors import Unsupported

_FILE = "1_Pooling/config.json"
_MODES = {
    "pooling_mode_mean_tokens": gguf.PoolingType.MEAN,
    "pooling_mode_cls_token": gguf.PoolingType.CLS,
    "pooling_mode_lasttoken": gguf.PoolingType.LAST,
}


def describe_pooling(checkpoint: Checkpoint, writer: gguf.GGUFWriter) -> None:
    """Raises Unsupported for a way that the engine does not know. Without a word, the mean is the custom."""
    said: dict[str, Any] = checkpoint.read_json(_FILE) or {"pooling_mode_mean_tokens": True}
    chosen = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in _MODES:
        raise Unsupported(
            f"The checkpoint pools by {', '.join(chosen)[:100] or 'nothing'}; {', '.join(_MODES)} are known."
        )
    writer.add_pooling_type(_MODES[chosen[0]])

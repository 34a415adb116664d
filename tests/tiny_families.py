"""Tiny models of the families that are converted here, written by the converter from random checkpoints."""

from __future__ import annotations

from pathlib import Path

from registry.convert.convert import convert
from tests.registry.convert.checkpoints import bert_weights, write_checkpoint
from tests.registry.convert.test_families import BERT, CASES

_WORDS = ["[PAD]", *(f"w{n}" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hell", "##o", "world"]
"""With the special ones where the engine looks for them when the file says nothing."""


def write_tiny_family(path: Path, name: str) -> Path:
    """`bert`, or one of the cases of the converter's tests, as the GGUF file it is converted to."""
    if name == "bert":
        config = {**BERT, "vocab_size": len(_WORDS)}
        folder = write_checkpoint(
            path.with_suffix(".checkpoint"), config, bert_weights(config), files={"vocab.txt": "\n".join(_WORDS)}
        )
    else:
        config, weights, files = CASES[name]
        folder = write_checkpoint(path.with_suffix(".checkpoint"), config, weights, files=files)
    convert(folder, path)
    return path

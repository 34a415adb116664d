"""Tiny models of the families that are converted here, written by the converter from random checkpoints."""

from __future__ import annotations

from pathlib import Path

from registry.convert.convert import convert
from tests.registry.convert.checkpoints import bert_weights, write_checkpoint
from tests.registry.convert.test_families import BERT, BERT_FILES, CASES


def write_tiny_family(path: Path, name: str) -> Path:
    """`bert`, or one of the cases of the converter's tests, as the GGUF file it is converted to."""
    config, weights, files = (BERT, bert_weights(BERT), BERT_FILES) if name == "bert" else CASES[name]
    folder = write_checkpoint(path.with_suffix(".checkpoint"), config, weights, files=files)
    convert(folder, path)
    return path

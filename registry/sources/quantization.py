"""Quantizations as file names tell them: found, compared, and put in an order of preference."""

from __future__ import annotations

import re

DEFAULT = "Q4_K_M"

# Nominal bits for each weight of a whole file, from the largest to the smallest.
BITS = {
    "F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_K_XL": 9.5, "Q8_0": 8.5, "Q8_K": 9.1, "Q6_K_XL": 7.3, "Q6_K_L": 6.9,
    "Q6_K": 6.6, "Q5_1": 6.0, "Q5_K_XL": 5.9, "Q5_K_L": 5.8, "Q5_K_M": 5.7, "Q5_K_S": 5.5, "Q5_0": 5.5, "Q5_K": 5.7,
    "Q4_1": 5.0, "Q4_K_XL": 5.0, "Q4_K_L": 4.95, "Q4_K_M": 4.85, "Q4_K": 4.85, "Q4_K_S": 4.6, "Q4_0": 4.55,
    "IQ4_NL": 4.5, "IQ4_XS": 4.3, "NVFP4": 4.5, "MXFP4": 4.3, "MXFP4_MOE": 4.3, "Q3_K_XL": 4.3, "Q3_K_L": 4.2,
    "Q3_K_M": 3.9, "Q3_K": 3.9, "IQ3_M": 3.7, "Q3_K_S": 3.5, "IQ3_S": 3.5, "IQ3_XS": 3.3, "IQ3_XXS": 3.1,
    "Q2_K_XL": 3.2, "Q2_K_L": 3.1, "Q2_K": 3.0, "Q2_K_S": 2.8, "IQ2_M": 2.7, "IQ2_S": 2.5, "IQ2_XS": 2.3,
    "IQ2_XXS": 2.1, "TQ2_0": 2.1, "IQ1_M": 1.75, "TQ1_0": 1.7, "IQ1_S": 1.6, "Q1_0": 1.2,
}  # fmt: skip

# What is taken when nobody names one: the default, then what is closest to it in size, a little larger
# before a little smaller, then larger ones, which lose nothing, before small ones, which lose much.
PREFERENCE = (
    "Q4_K_M", "Q4_K_L", "Q4_K_XL", "Q4_K_S", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4_MOE", "MXFP4", "NVFP4",
    "Q5_K_S", "Q5_K_M", "Q5_K", "Q5_K_L", "Q5_K_XL", "Q5_0", "Q5_1", "Q6_K", "Q6_K_L", "Q6_K_XL",
    "Q8_0", "Q8_K_XL", "Q8_K", "Q3_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K", "IQ3_M", "Q3_K_S", "IQ3_S", "IQ3_XS", "IQ3_XXS",
    "BF16", "F16", "Q2_K_XL", "Q2_K_L", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "TQ2_0", "F32",
    "IQ1_M", "TQ1_0", "IQ1_S", "Q1_0",
)  # fmt: skip

_DYNAMIC = "UD-"
"""Some publishers put this in front of mixtures that they tuned layer by layer."""
_SPELLINGS = {"FP16": "F16", "FP32": "F32"}
_FORM = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:"
    r"I?Q[1-8]_(?:[01](?:_[48]_[48])?|K(?:_(?:XXL|XL|XS|L|M|S))?|NL|XXS|XS|XL|S|M)"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def normal(quantization: str) -> str:
    """The usual spelling, whatever case and dialect it came in."""
    upper = quantization.upper()
    return _SPELLINGS.get(upper, upper)


def find(text: str) -> str | None:
    """The quantization that a file's or folder's name tells, in its usual spelling; the last when there are several."""
    found = _FORM.findall(text)
    return normal(found[-1]) if found else None


def split_off(text: str) -> tuple[str, str | None]:
    """A name without its quantization, as it was spelled, and the quantization; the last when there are several."""
    found = [*_FORM.finditer(text)]
    if not found:
        return text, None
    match = found[-1]
    before, after = text[: match.start()].rstrip("-._ "), text[match.end() :].lstrip("-._ ")
    return "-".join(part for part in (before, after) if part), normal(match[1])


def without_mark(quantization: str) -> str:
    """Without the mark of tuned mixtures, which are asked for by their plain name when no plain one is there."""
    return quantization.removeprefix(_DYNAMIC)


def rank(quantization: str | None) -> tuple[int, bool]:
    """Sorts quantizations, best first, for those who do not say which they want. Unknown ones come last."""
    plain = without_mark(quantization or "")
    try:
        return PREFERENCE.index(plain), plain != quantization
    except ValueError:
        return len(PREFERENCE), False


def bits(quantization: str | None) -> float | None:
    """Bits for each weight, roughly; None for what is not known."""
    return BITS.get(without_mark(quantization or ""))

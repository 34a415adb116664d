"""The options a model or a request may set: their names, kinds and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from registry.errors import InvalidRequest

ParameterValue = int | float | bool | str | list[str]

DRAFT_PARAMETER = "draft_model"
"""Names a model that guesses ahead; `DRAFT` in a Modelfile can do the same."""

MAX_STOPS = 256
MAX_NUMBERS = 256
MAX_STOP_CHARACTERS = 4096
MAX_TEXT_CHARACTERS = 1000
_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one option may be; the bounds are included."""

    kind: Literal["int", "float", "bool", "string", "strings", "numbers", "choice"]
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """In words: what a value has to be."""
        if self.kind == "bool":
            return "true or false"
        if self.kind == "string":
            return f"a text of at most {MAX_TEXT_CHARACTERS} characters that is not empty"
        if self.kind == "strings":
            return f"a list of at most {MAX_STOPS} strings that are not empty"
        if self.kind == "numbers":
            return f"a list of at most {MAX_NUMBERS} numbers from {self.minimum:.12g} to {self.maximum:.12g}"
        if self.kind == "choice":
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        noun = "an integer" if self.kind == "int" else "a number"
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"{noun} from {low:.12g} to {high:.12g}"
        return noun if low is None else f"{noun} of at least {low:.12g}"


PARAMETERS: Mapping[str, Parameter] = {
    "num_ctx": Parameter("int", 4, _INT32),
    "num_batch": Parameter("int", 1, 1 << 20),
    "num_gpu": Parameter("int", -1, _INT32),
    "main_gpu": Parameter("int", 0, 1023),
    "use_mmap": Parameter("bool"),
    "use_mlock": Parameter("bool"),
    "num_thread": Parameter("int", 0, 4096),
    "split_mode": Parameter("choice", choices=("none", "layer", "row")),
    "tensor_split": Parameter("numbers", 0, 1e9),
    # How much of each adapter of a model is used, in their order; 0 leaves one out.
    "lora_scales": Parameter("numbers", -1000, 1000),
    "num_cpu_moe": Parameter("int", 0, _INT32),
    "kv_cache_type": Parameter("choice", choices=("f16", "q8_0", "q4_0")),
    "flash_attention": Parameter("choice", choices=("auto", "on", "off")),
    # How positions are told apart beyond the length of the training; 0 leaves a number to the model.
    "rope_scaling": Parameter("choice", choices=("none", "linear", "yarn")),
    "rope_frequency_base": Parameter("float", 0, 1e12),
    "rope_frequency_scale": Parameter("float", 0, 1000),
    "yarn_orig_ctx": Parameter("int", 0, _INT32),
    "yarn_ext_factor": Parameter("float", -1, 1000),
    "yarn_beta_fast": Parameter("float", -1, 1e6),
    "yarn_beta_slow": Parameter("float", -1, 1e6),
    DRAFT_PARAMETER: Parameter("string"),
    "draft_num_predict": Parameter("int", 0, 1024),
    "num_keep": Parameter("int", -1, _INT32),
    "num_predict": Parameter("int", -2, _INT32),
    # The largest 32-bit number means "draw one" inside the engine.
    "seed": Parameter("int", -1, 2**32 - 2),
    "temperature": Parameter("float", 0, None),
    "top_k": Parameter("int", -1, _INT32),
    "top_p": Parameter("float", 0, 1),
    "min_p": Parameter("float", 0, 1),
    "typical_p": Parameter("float", 0, 1),
    "repeat_last_n": Parameter("int", -1, _INT32),
    # Logits are divided by it, so that zero is out of the question.
    "repeat_penalty": Parameter("float", 0.001, 1000),
    "presence_penalty": Parameter("float"),
    "frequency_penalty": Parameter("float"),
    "mirostat": Parameter("int", 0, 2),
    "mirostat_tau": Parameter("float", 0, None),
    "mirostat_eta": Parameter("float", 0, None),
    "stop": Parameter("strings"),
    "deterministic": Parameter("bool"),
}

REMOVED = frozenset(
    {
        "numa",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "embedding_only",
        "num_gqa",
        "penalize_newline",
        "tfs_z",
    }
)
"""Options that old clients still send and that no longer do anything."""

_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE"})


def parse_parameter(name: str, text: str) -> ParameterValue:
    """The value of a Modelfile's PARAMETER line; `stop` gives a list of one.

    Raises InvalidRequest, which names the option and what is allowed.
    """
    parameter = _find(name)
    if parameter.kind == "strings":
        return check_parameter(name, [text])
    if parameter.kind in ("string", "choice"):
        return check_parameter(name, text)
    if parameter.kind == "numbers":
        return check_parameter(name, text.split(","))
    if parameter.kind == "bool":
        if text not in _TRUE | _FALSE:
            raise _wrong(name, parameter, text)
        return text in _TRUE
    try:
        value = int(text) if parameter.kind == "int" else float(text)
    except ValueError:
        raise _wrong(name, parameter, text) from None
    return check_parameter(name, value)


def check_parameter(name: str, value: object) -> ParameterValue:
    """A value from JSON in its own type; whole floats pass as integers, one string as a list of it.

    Raises InvalidRequest, which names the option and what is allowed.
    """
    parameter = _find(name)
    if parameter.kind == "strings":
        return _check_strings(name, parameter, value)
    if parameter.kind == "numbers":
        return _check_numbers(name, parameter, value)
    if parameter.kind == "choice":
        if value not in parameter.choices:
            raise _wrong(name, parameter, value)
        return str(value)
    if parameter.kind == "string":
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT_CHARACTERS:
            raise _wrong(name, parameter, value)
        return value
    if parameter.kind == "bool":
        if not isinstance(value, bool):
            raise _wrong(name, parameter, value)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise _wrong(name, parameter, value)
    if parameter.minimum is not None and value < parameter.minimum:
        raise _wrong(name, parameter, value)
    if parameter.maximum is not None and value > parameter.maximum:
        raise _wrong(name, parameter, value)
    if parameter.kind == "float":
        return float(value)
    if value != int(value):
        raise _wrong(name, parameter, value)
    return int(value)


def _find(name: str) -> Parameter:
    parameter = PARAMETERS.get(name)
    if parameter is None:
        raise InvalidRequest(f"unknown parameter {_shown(name)}", field=name[:100])
    return parameter


def _check_strings(name: str, parameter: Parameter, value: object) -> list[str]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or len(strings) > MAX_STOPS:
        raise _wrong(name, parameter, value)
    if not all(isinstance(one, str) and 0 < len(one) <= MAX_STOP_CHARACTERS for one in strings):
        raise _wrong(name, parameter, value)
    return list(strings)


def _check_numbers(name: str, parameter: Parameter, value: object) -> list[str]:
    """A list of numbers, or one, as texts: so they are stored."""
    assert parameter.minimum is not None and parameter.maximum is not None
    numbers = [_number(one) for one in value] if isinstance(value, list) else [_number(value)]
    if not numbers or len(numbers) > MAX_NUMBERS:
        raise _wrong(name, parameter, value)
    if not all(one is not None and parameter.minimum <= one <= parameter.maximum for one in numbers):
        raise _wrong(name, parameter, value)
    return [f"{one:.12g}" for one in numbers if one is not None]


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        return None
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _wrong(name: str, parameter: Parameter, value: object) -> InvalidRequest:
    return InvalidRequest(f"{name} must be {parameter.allowed}, not {_shown(value)}", field=name)


def _shown(value: object) -> str:
    # A huge integer costs quadratic time to print, so that its size is told instead.
    if isinstance(value, int) and value.bit_length() > 256:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"

"""The tool-call format that a chat template asks for."""

from __future__ import annotations

from runner.chat.tool_formats.command_r import COMMAND_R, COMMAND_R_BLOCK
from runner.chat.tool_formats.deepseek import DEEPSEEK, DEEPSEEK_BARE
from runner.chat.tool_formats.format import ToolFormat
from runner.chat.tool_formats.gemma import FUNCTION_GEMMA, GEMMA4
from runner.chat.tool_formats.generic import GENERIC
from runner.chat.tool_formats.glm import GLM
from runner.chat.tool_formats.granite import GRANITE
from runner.chat.tool_formats.harmony import HARMONY
from runner.chat.tool_formats.hermes import HERMES
from runner.chat.tool_formats.llama_json import LLAMA_JSON
from runner.chat.tool_formats.mistral import MISTRAL, MISTRAL_NAMED
from runner.chat.tool_formats.pythonic import LFM, OLMO, PYTHONIC
from runner.chat.tool_formats.qwen_coder import QWEN_CODER

# Those with marks of their own come before those that share `<tool_call>` or have no mark at all.
FORMATS = (
    HARMONY,
    GLM,
    QWEN_CODER,
    FUNCTION_GEMMA,
    GEMMA4,
    DEEPSEEK,
    DEEPSEEK_BARE,
    MISTRAL_NAMED,
    MISTRAL,
    COMMAND_R,
    COMMAND_R_BLOCK,
    LFM,
    OLMO,
    GRANITE,
    HERMES,
    PYTHONIC,
    LLAMA_JSON,
)


def choose_format(template: str) -> ToolFormat:
    """The format whose marks stand in the template; the generic one when none does."""
    return next((one for one in FORMATS if one.is_in(template)), GENERIC)

"""Which language a template is written in: Jinja or Go's."""

from __future__ import annotations

import re

_FUNCTIONS = (
    "range|template|block|define|and|or|not|eq|ne|lt|le|gt|ge|len|index|slice|print|printf|println|call|html|js|"
    "urlquery|json|toTypeScriptType"
)
_GO_ACTION = re.compile(
    rf"""\{{\{{-?[\s(]*(?:
        [.$`] | /\*
        | (?:else\s+)?(?:if|with)\s
        | (?:else|end|break|continue)\s*-?\}}\}}
        | (?:{_FUNCTIONS})\s+(?: [.$"`] | \(\s*(?:{_FUNCTIONS})\s )
        | (?:currentDate|yesterdayDate)\b
    )""",
    re.VERBOSE,
)


def is_go_template(template: str) -> bool:
    """Whether a template is written in Go's template language: it has an action that Jinja cannot have."""
    return _GO_ACTION.search(template) is not None

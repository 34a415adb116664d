"""A template in Go's language: read once, executed with data."""

from __future__ import annotations

from runner.chat.budget import Budget
from runner.chat.go_template import tree
from runner.chat.go_template.execution import execute
from runner.chat.go_template.functions import FUNCTIONS
from runner.chat.go_template.nodes import Tree
from runner.chat.go_template.parser import parse
from runner.chat.go_template.values import Value


class GoTemplate:
    """A template that was read; it never changes and may be used by several threads."""

    def __init__(self, source: Tree | str) -> None:
        """Raises GoTemplateError when a source is no template."""
        self._tree = parse(source, FUNCTIONS) if isinstance(source, str) else source

    @property
    def field_names(self) -> frozenset[str]:
        """The fields and variables that are mentioned anywhere, in lower case."""
        return tree.field_names(self._tree)

    def with_field(self, name: str) -> GoTemplate:
        """The template with `{{ .name }}` at its end."""
        return GoTemplate(tree.with_field(self._tree, name))

    def cut_at_field(self, name: str) -> GoTemplate:
        """The template without what comes behind the first place that writes `.name`."""
        return GoTemplate(tree.cut_at_field(self._tree, name))

    def execute(self, data: Value, budget: Budget) -> str:
        """The text it makes of `data`. Raises GoTemplateError and nothing else, whatever it says."""
        return execute(self._tree, data, budget)

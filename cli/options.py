"""Options of a request, as they are typed: NAME=VALUE."""

from __future__ import annotations

from collections.abc import Iterable

from cli.errors import WrongUsage
from cli.wire import Json


def parse_options(settings: Iterable[str]) -> Json:
    """The options of `-o NAME=VALUE`, each in its own type; `stop` may come more than once. Raises WrongUsage."""
    options: Json = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.strip():
            raise WrongUsage(f"{setting!r} is no option; one looks like temperature=0.2.")
        add_option(options, name.strip(), value)
    return options


def add_option(options: Json, name: str, text: str) -> None:
    """Set one option, or add to it when it is a list. Raises WrongUsage."""
    from registry.errors import RegistryError
    from registry.parameters import REMOVED, parse_parameter

    if name in REMOVED:
        raise WrongUsage(f"{name} no longer does anything; leave it out.")
    try:
        value = parse_parameter(name, text)
    except RegistryError as error:
        raise WrongUsage(f"{error.message}.{_suggestion(name)}") from None
    if isinstance(value, list):
        options[name] = [*options.get(name, []), *value]
    else:
        options[name] = value


def _suggestion(name: str) -> str:
    """What somebody may have meant who asks for an option that there is not."""
    from difflib import get_close_matches

    from registry.parameters import PARAMETERS

    close = get_close_matches(name, PARAMETERS, n=1) if name not in PARAMETERS else []
    return f" Did you mean {close[0]}?" if close else ""

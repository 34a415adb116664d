"""Names the file that a model used in place, when it is not there any more."""

from __future__ import annotations

from cli.errors import CliError
from cli.output import note


def tell_original(digest: object) -> None:
    """Say which file of this machine a digest was used from. The daemon does not: what it tells may be read elsewhere.

    Says nothing of a digest that the store has itself, and of stores on other machines.
    """
    from cli.local_store import local_store
    from registry.digest import Digest
    from registry.errors import RegistryError

    try:
        reference = local_store("adopt").blobs.places.references.find(Digest.parse(str(digest)))
    except (CliError, RegistryError):
        return
    if reference is not None:
        note(f"The file is {reference.path}")

"""Names the file that a model used in place, when it is not there any more."""

from __future__ import annotations

from cli.errors import ApiError, CliError
from cli.output import note


def tell_original(error: ApiError) -> None:
    """Say which file of this machine an error is about. The daemon does not: its errors may be read elsewhere."""
    from cli.local_store import local_store
    from registry.digest import Digest
    from registry.errors import RegistryError

    try:
        reference = local_store("adopt").blobs.places.references.find(Digest.parse(str(error.facts.get("digest"))))
    except (CliError, RegistryError):
        return
    if reference is not None:
        note(f"The file is {reference.path}")

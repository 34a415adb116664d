"""Names the files that models use where another program keeps them, when they are not there any more."""

from __future__ import annotations

from cli.errors import CliError
from cli.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from registry.references import Reference


def tell_original(digest: object) -> None:
    """Say which file of this machine a digest was used from. The daemon does not: what it tells may be read elsewhere.

    Says nothing of a digest that the store has itself, and of stores on other machines.
    """
    reference = _original(digest)
    if reference is not None:
        note(f"The file is {reference.path}")


def tell_lost_original(model: str, digest: str) -> None:
    """Say that a model has lost a file that it used in place, which one, and what helps."""
    reference = _original(digest)
    if reference is None:
        note(
            f"{model} uses a file where another program keeps it, and that is gone or changed; `puna adopt --status` "
            "on the daemon's machine names it. Put it back, or remove the model with "
            f"`puna rm {model}` and get it anew."
        )
        return
    what = "is gone" if reference.state == "gone" else "has changed"
    note(
        f"{model} uses {reference.path}, which {what}: put it back as it was, or remove the model with "
        f"`puna rm {model}` and adopt or pull it anew."
    )


def _original(digest: object) -> Reference | None:
    from cli.local_store import local_store
    from registry.digest import Digest
    from registry.errors import RegistryError

    try:
        return local_store("adopt").blobs.places.references.find(Digest.parse(str(digest)))
    except (CliError, RegistryError):
        return None

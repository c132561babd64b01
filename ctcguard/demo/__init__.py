"""``ctcguard demo``: a small speech recogniser, trained for real, healthy and with the mistakes that people make."""

from __future__ import annotations

CASES = ("healthy", "softmax", "narrow-head", "short-clip", "free-labels")
_REQUIRED = ("torch", "transformers", "accelerate", "jax", "optax", "flax", "wandb", "espeakng_loader")


def run_demo(case: str | None = None, quick: bool = False) -> int:
    """Play the demo.

    Parameters
    ----------
    case : str, optional
        Only this one: ``healthy``, ``softmax``, ``narrow-head``, ``short-clip`` or ``free-labels``.
    quick : bool
        Under 30 seconds in all: less speech and fewer steps, and the character error rate is not judged.

    Returns
    -------
    int
        0 when every case ended as it should, else 1.

    Raises
    ------
    SettingsError
        For a case that does not exist.
    MissingExtraError
        If a package that the demo needs is not installed.
    """
    from importlib.util import find_spec

    from ctcguard.errors import MissingExtraError, SettingsError

    if case is not None and case not in CASES:
        raise SettingsError(f"{case!r} is no case of the demo; the cases are: {', '.join(CASES)}")
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"the demo needs {', '.join(missing)}: pip install 'ctcguard[demo]'")
    from ctcguard.demo.cases import play

    return min(1, play([case] if case else list(CASES), quick=quick))

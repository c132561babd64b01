"""ctcguard: a training monitor for CTC. Public names are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctcguard.call import CTCCall, ctc_call
    from ctcguard.errors import CallError, CTCGuardError, CTCStop, CTCVerdictError, MissingExtraError, SettingsError
    from ctcguard.finding import Finding, Severity
    from ctcguard.guard import Guard
    from ctcguard.judge import diagnose
    from ctcguard.settings import Settings
    from ctcguard.verdict import Verdict
    from ctcguard.vocabulary import Vocabulary
    from ctcguard_integrations.hf_trainer import CTCGuard
    from ctcguard_integrations.jax_step import guard_step, observe
    from ctcguard_integrations.torch_loop import watch
    from ctcguard_integrations.wandb_alerts import WandbAlerts

__version__ = "0.1.0"

_HOMES = {
    "CTCCall": "ctcguard.call",
    "CTCGuardError": "ctcguard.errors",
    "CTCStop": "ctcguard.errors",
    "CTCVerdictError": "ctcguard.errors",
    "CallError": "ctcguard.errors",
    "Finding": "ctcguard.finding",
    "Guard": "ctcguard.guard",
    "MissingExtraError": "ctcguard.errors",
    "Settings": "ctcguard.settings",
    "SettingsError": "ctcguard.errors",
    "Severity": "ctcguard.finding",
    "Verdict": "ctcguard.verdict",
    "Vocabulary": "ctcguard.vocabulary",
    "ctc_call": "ctcguard.call",
    "diagnose": "ctcguard.judge",
    "CTCGuard": "ctcguard_integrations.hf_trainer",
    "WandbAlerts": "ctcguard_integrations.wandb_alerts",
    "guard_step": "ctcguard_integrations.jax_step",
    "observe": "ctcguard_integrations.jax_step",
    "watch": "ctcguard_integrations.torch_loop",
}
_EXTRAS = {"torch": "torch", "transformers": "hf", "accelerate": "hf", "wandb": "wandb", "jax": "jax", "optax": "jax"}

__all__ = [
    "CTCCall",
    "CTCGuard",
    "CTCGuardError",
    "CTCStop",
    "CTCVerdictError",
    "CallError",
    "Finding",
    "Guard",
    "MissingExtraError",
    "Settings",
    "SettingsError",
    "Severity",
    "Verdict",
    "Vocabulary",
    "WandbAlerts",
    "__version__",
    "ctc_call",
    "diagnose",
    "guard_step",
    "observe",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ctcguard' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _EXTRAS:
            raise
        from ctcguard.errors import MissingExtraError

        raise MissingExtraError(
            f"ctcguard.{name} needs {missing}, which is not installed: pip install 'ctcguard[{_EXTRAS[missing]}]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""Every exception that ctcguard raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctcguard.verdict import Verdict


class CTCGuardError(Exception):
    """Base of all errors of ctcguard.

    Deliberately no ``RuntimeError``: Hugging Face's ``auto_find_batch_size`` swallows some of those.
    """


class CTCVerdictError(CTCGuardError):
    """Raised into the training by a finding whose reaction is ``raise``; the weights are untouched.

    Attributes
    ----------
    verdict : Verdict
        The root cause, its symptoms and the fix.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text())
        self.verdict = verdict

    def __reduce__(self) -> tuple[type[CTCVerdictError], tuple[Verdict]]:
        return type(self), (self.verdict,)


class CTCStop(CTCVerdictError):
    """Leaves a ``with watch(on_error="stop")`` block quietly: the block ends, the code after it runs."""


class SettingsError(CTCGuardError, ValueError):
    """A setting, code, threshold or vocabulary that ctcguard does not know; the message lists what it knows."""


class CallError(CTCGuardError, ValueError):
    """The arrays given do not have the shapes of one CTC loss call; the message says which."""


class RecordError(CTCGuardError, ValueError):
    """A file that is no record of a call, or a record that cannot be written; the message says why."""


class ReportError(CTCGuardError):
    """A report that cannot be made: no run in that directory, or no place to write; the message says which."""


class MissingExtraError(CTCGuardError, ImportError):
    """A framework is not installed; the message names the extra to install."""

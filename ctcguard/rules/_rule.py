"""What a rule is: floats in, a finding out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings


class Rule(BaseModel):
    """Base of all rules. The class docstring is the rule's page, its fields are its thresholds.

    Attributes
    ----------
    code : str
        For instance ``"CTC402"``; never reused.
    severity : Severity
        The usual severity; a finding may be milder, and the page says when.
    wants : tuple of str
        Readings without which the rule is not run.
    causes : tuple of str
        Slugs that its findings can carry.
    explains : tuple of str
        Codes of symptoms that this fault brings about. The relation has no cycles.
    aftermath : tuple of str
        Codes that it explains in later calls too (a head that is too narrow stays so).
    poisons : tuple of str
        Codes that it explains in later calls where nobody sees gradients (JAX): the update may have spread a NaN.
    everywhere : bool
        Whether it explains its symptoms in other utterances of the call too: a list mixed up is wrong for all.
    unsafe : bool
        Whether the loss itself may corrupt memory, so that the finding must be on disk before it is called.
    shared : bool
        Whether it judges what ranks have in common (gradients after their exchange): the cause may be another rank's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: ClassVar[str]
    severity: ClassVar[Severity] = Severity.ERROR
    wants: ClassVar[tuple[str, ...]]
    causes: ClassVar[tuple[str, ...]]
    explains: ClassVar[tuple[str, ...]] = ()
    aftermath: ClassVar[tuple[str, ...]] = ()
    poisons: ClassVar[tuple[str, ...]] = ()
    everywhere: ClassVar[bool] = False
    unsafe: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    @classmethod
    def name(cls) -> str:
        """The fault in words, from the class name: ``unnormalised-log-probs``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def is_setup(cls) -> bool:
        """Whether the rule can be judged before the first call, from the head, the blank and the vocabulary."""
        return cls.code.startswith("CTC1")

    @classmethod
    def about_vocabulary(cls) -> bool:
        """Whether the rule holds the vocabulary against the head: judged once in a run, not at every call."""
        return cls.is_setup() and "vocabulary" in cls.wants

    def check(self, readings: Readings) -> Finding | None:
        """The finding, or None when the healthy condition holds. NaN never satisfies it."""
        raise NotImplementedError

    def finding(
        self,
        readings: Readings,
        *,
        cause: str,
        message: str,
        fix: str,
        evidence: str = "",
        numbers: dict[str, Any] | None = None,
        affected: Iterable[int] = (),
        note: Callable[[int], str] = lambda index: "",
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule.

        Parameters
        ----------
        readings : Readings
            Where the utterances are described.
        cause, evidence, message, fix : str
            As in `Finding`.
        numbers : dict, optional
            The readings judged, for ``findings.jsonl``.
        affected : iterable of int
            Batch indices concerned, worst first; the first five are named.
        note : callable
            Batch index to what is wrong with that utterance.
        severity : Severity, optional
            When it is not the rule's usual one.
        """
        indices = [int(index) for index in affected]
        return Finding(
            code=self.code,
            name=self.name(),
            severity=severity or self.severity,
            cause=cause,
            evidence=evidence,
            message=message,
            fix=fix,
            readings=numbers or {},
            utterances=readings.utterances(indices, note),
            affected=frozenset(indices),
            explains=self.explains,
            everywhere=self.everywhere,
        )

"""A finding: what one rule saw in one CTC call. A plain immutable value."""

from __future__ import annotations

import time as clock
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
NAMED_UTTERANCES = 5

Phase = Literal["setup", "train", "eval"]


class Severity(StrEnum):
    """How bad a finding is: the run is wrong, probably wrong or wasteful, or good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFORMATION = "information"

    @property
    def rank(self) -> int:
        """0 for the worst severity, growing as it gets milder."""
        return list(Severity).index(self)


class Utterance(BaseModel):
    """One item of a batch, with what is known of it.

    Attributes
    ----------
    index : int
        Position in the batch.
    note : str
        What is wrong with this one, for instance ``"5 frames for 7 labels"``.
    id, text, labels
        The name given to it by the user, its decoded transcript and its labels, where they can be known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    note: str = ""
    id: str | None = None
    text: str | None = None
    labels: tuple[int, ...] | None = None


class Where(BaseModel):
    """Where in the run a finding was made.

    Attributes
    ----------
    step : int
        Optimizer steps already taken; the first call is step 0.
    micro_step : int
        CTC calls since the last optimizer step, this one not counted.
    source : str
        The function that was called, for instance ``"torch.ctc_loss"``.
    call_site : str
        ``file:line`` in the user's own code, or empty.
    rank, ranks : int
        The process that it was made in, and how many train together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Phase = "train"
    step: int = 0
    micro_step: int = 0
    rank: int = 0
    ranks: int = Field(default=1, exclude=True)
    framework: str = ""
    source: str = ""
    call_site: str = ""


class Finding(Where):
    """One line of ``findings.jsonl``.

    Attributes
    ----------
    cause : str
        A slug of the rule's own list.
    evidence : str
        What selected that cause.
    message : str
        The measurement, with its limit and unit.
    fix : str
        An imperative for that cause.
    readings : dict
        The numbers that the rule judged.
    utterances : tuple of Utterance
        At most five of those concerned.
    affected : frozenset of int
        All batch indices concerned; empty when the finding is about the whole call.
    explains : tuple of str
        Codes that are symptoms of this one.
    everywhere : bool
        Whether they are in other utterances too.
    """

    code: str
    name: str
    severity: Severity
    cause: str
    evidence: str = ""
    message: str
    fix: str
    readings: dict[str, Any] = Field(default_factory=dict)
    utterances: tuple[Utterance, ...] = ()
    affected: frozenset[int] = Field(default=frozenset(), exclude=True)
    explains: tuple[str, ...] = ()
    everywhere: bool = Field(default=False, exclude=True)
    time: float = Field(default_factory=clock.time)

    def at(self, where: Where) -> Finding:
        """The same finding, located in the run."""
        return self.model_copy(update=dict(where))

    def record(self) -> dict[str, Any]:
        """The JSON object for ``findings.jsonl``; NaN and infinities become strings."""
        body = self.model_dump(mode="json")
        return {"type": "finding", "schema": SCHEMA, **body, "utterance_count": len(self.affected)}

    def _repr_html_(self) -> str:
        from ctcguard.notebook import finding_html

        return finding_html(self)

    def title(self) -> str:
        """Code, name and step: under 64 characters, as wandb's alerts ask for."""
        return f"{self.code} {self.name} at step {self.step}"

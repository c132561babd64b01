"""``torch-audit``: ``autopatch``, as its page shows it first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.detection.tools._tool import Say, Steps, Tool


class TorchAudit(Tool):
    """Looks at inputs, activations, weights and gradients of every step."""

    name = "torch-audit"
    title = "torch-audit"
    how = (
        "`autopatch(model, optimizer=optimizer, every_n_steps=1)` before the first training call of every model; an "
        "alarm is a finding at its own default `fail_level`, ERROR"
    )

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        from torch_audit import autopatch

        from benchmarks.detection.torch_program import training

        self._auditors: list[Any] = []

        def begins(model: Any, optimizer: Any) -> None:
            auditor = autopatch(model, optimizer=optimizer, every_n_steps=1, start_step=steps.taken)
            self._auditors.append(auditor)

        with training(begins):
            yield

    def finish(self, say: Say) -> None:
        from torch_audit.core import Severity

        for auditor in self._auditors:
            result = auditor.finish()
            for finding in result.findings:
                if finding.severity in (Severity.ERROR, Severity.FATAL):
                    rule = result.rules[finding.rule_id]
                    # The ranges that it reports are of the batch: with other numbers it is the same alarm.
                    message = re.sub(r"(?<![\w.])-?\d+\.\d+", "…", finding.message)
                    kind = f"{finding.rule_id} {message}"
                    say(kind, f"{finding.rule_id} {rule.title}: {finding.message} {rule.remediation}", finding.step)

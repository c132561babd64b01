"""CTC803."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctcguard.finding import Severity
from ctcguard.readings import Readings
from ctcguard.rules.model.noisy_eval import NoisyEval

LIMIT = 1e-4


def readings(*changes: float, **other: Any) -> Readings:
    return Readings({"repeat_change": np.asarray(changes), "output_limit": LIMIT, **other})


@pytest.mark.parametrize("changes", [(0.0, 0.0), (LIMIT, 0.0), ()])
def test_healthy(changes: tuple[float, ...]) -> None:
    assert NoisyEval().check(readings(*changes)) is None
    assert NoisyEval().check(readings(*changes, random_draw="rand")) is None


@pytest.mark.parametrize("change", [1.01 * LIMIT, float("nan"), float("inf")])
def test_fires(change: float) -> None:
    finding = NoisyEval().check(readings(0.0, change))
    assert finding is not None
    assert (finding.code, finding.severity, finding.affected) == ("CTC803", Severity.WARNING, {1})
    assert finding.message.startswith("in eval mode the same batch must give the same output twice, but it differs by")


@pytest.mark.parametrize(
    ("draw", "place", "site", "training", "cause", "evidence", "fix"),
    [
        (
            "bernoulli_", "enc (Enc)", "net.py:3", False,
            "dropout-in-evaluation", "bernoulli_ draws random numbers in enc (Enc) at net.py:3", "in enc (Enc)",
        ),
        ("native_dropout", "", "", False, "dropout-in-evaluation", "native_dropout draws", "in the model"),
        ("native_dropout", "d (Dropout)", "net.py:3", True, "module-in-training-mode", "in d (Dropout)", "ModuleList"),
        ("rand", "enc (Enc)", "net.py:3", False, "random-in-evaluation", "rand draws", "only if self.training"),
        ("numpy.random", "", "", False, "random-in-evaluation", "numpy.random draws", "in the model only if"),
        ("", "", "", False, "keeps-state", "no random number was drawn", "reset what the model keeps"),
    ],
)  # fmt: skip
def test_each_cause(draw: str, place: str, site: str, training: bool, cause: str, evidence: str, fix: str) -> None:
    drawn = {"random_draw": draw, "random_place": place, "random_site": site, "random_in_training_mode": training}
    finding = NoisyEval().check(readings(0.3, **(drawn if draw else {})))
    assert finding is not None
    assert finding.cause == cause
    assert evidence in finding.evidence
    assert fix in finding.fix

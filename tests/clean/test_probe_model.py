"""The same healthy trainings with the probe of the model: no alarm, and the same weights."""

from __future__ import annotations

import pytest

from ctcguard import watch
from tests.clean.lab import assert_clean, assert_same
from tests.clean.test_loops import healthy

PADDED = {"architecture: transformer", "architecture: LSTM"}
"""They have no mask: CTC802 is right about them."""
CASES = sorted(healthy.cases.keys() - PADDED)[::5]


@pytest.mark.parametrize("title", CASES)
def test_stays_silent(title: str) -> None:
    case = healthy.cases[title]
    alone = case.train(0)
    with watch(on_warning="raise", run_dir="run", probe_model=True, **case.settings) as guard:
        probed = case.train(0)
    assert_clean(guard.findings, case.information)
    assert_same(alone, probed)


def test_most_of_them_are_run() -> None:
    ran = 0
    for title in CASES:
        with watch(on_warning="raise", run_dir="run", probe_model=True, **healthy.cases[title].settings) as guard:
            healthy.cases[title].train(0)
        ran += " ran 2 times" in guard.guard.end_fields["probe_model"]
    assert ran > 0.8 * len(CASES)

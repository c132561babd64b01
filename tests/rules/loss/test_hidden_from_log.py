"""CTC507."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ctcguard.readings import Readings
from ctcguard.rules.loss.hidden_from_log import HiddenFromLog


def readings(logged: float, hidden: int, **other: Any) -> Readings:
    return Readings({"logged_loss": logged, "hidden_losses": hidden, "hidden_of": 10, "hidden_step": 3, **other})


@pytest.mark.parametrize("healthy", [readings(5.1, 0), readings(0.0, 0), readings(np.nan, 1), readings(np.inf, 10)])
def test_healthy(healthy: Readings) -> None:
    """Nothing was hidden, or the log shows it."""
    assert HiddenFromLog().check(healthy) is None


@pytest.mark.parametrize(("logged", "hidden"), [(5.1, 1), (0.0, 10), (-2.0, 3)])
def test_fires(logged: float, hidden: int) -> None:
    finding = HiddenFromLog().check(readings(logged, hidden))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC507", "nan-filtered", "warning")
    assert f"the log says loss {logged:.4g}, but the loss of {hidden} of 10 micro-batches" in finding.message
    assert "first in step 3" in finding.message
    assert "logging_nan_inf_filter=False" in finding.fix


@pytest.mark.parametrize(
    ("losses", "said"),
    [([3.0, 4.0], "it is another term"), ([3.0, np.nan], "logging_nan_inf_filter;"), (None, "logging_nan_inf_filter;")],
)
def test_another_term_is_named_only_where_ctc_is_known_to_be_well(losses: Any, said: str) -> None:
    known = {} if losses is None else {"losses": np.asarray(losses)}
    finding = HiddenFromLog().check(readings(0.0, 1, **known))
    assert finding is not None
    assert said in finding.evidence


def test_what_the_page_says_of_optax() -> None:
    assert float(jnp.nan_to_num(jnp.nan)) == 0.0

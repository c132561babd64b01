"""How exact log-probs can be, by the dtype in which the softmax ran."""

from __future__ import annotations

from math import isnan
from typing import NamedTuple

from pydantic import Field

from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class Limit(NamedTuple):
    """A tolerance and the dtype that it belongs to."""

    nats: float
    dtype: str


class ToleranceRule(Rule):
    """A rule about log-probs whose limit depends on the dtype of the softmax."""

    float32_nats: float = Field(1e-3, ge=0, description="limit for float32 and float64; noise floor 7e-6 (measured)")
    float16_nats: float = Field(1e-2, ge=0, description="limit for float16; noise floor 2.4e-3 (measured)")
    bfloat16_nats: float = Field(5e-2, ge=0, description="limit for bfloat16; noise floor 1.9e-2 (measured)")
    hint_nats: float = Field(
        1e-2, ge=0, description="up to here it is information only: log(softmax(x) + eps) with a usual eps"
    )

    def lowest_limit(self) -> float:
        """The lowest limit of all: what is below it, as usual, need not be told which is its own."""
        return min(self.float32_nats, self.float16_nats, self.bfloat16_nats)

    def limit(self, readings: Readings) -> Limit:
        """The limit for these readings: values that all fit into half precision came from there, whatever they are."""
        dtype = str(readings["softmax_dtype"])
        finite = not isnan(readings.get("sample_max", 0.0))  # of nothing but NaN nobody knows where it came from
        if dtype == "bfloat16" or (readings["fits_bfloat16"] == 1 and finite):
            return Limit(self.bfloat16_nats, "bfloat16")
        if dtype == "float16" or (readings["fits_float16"] == 1 and finite):
            return Limit(self.float16_nats, "float16")
        return Limit(self.float32_nats, dtype)

    def hint_limit(self, readings: Readings) -> float:
        """Above this it is no rounding and no eps."""
        return max(self.hint_nats, self.limit(readings).nats)

"""The model is run again on changed batches, on request: architectures that leak nothing, or no more than is usual."""

from __future__ import annotations

from benchmarks.clean.corpus import Family
from benchmarks.clean.families import architectures, objectives, trainer

family = Family("probed")
independent = (setting for setting in architectures.family.settings if setting.name != architectures.OVER_PADDING)
family.adopt(independent, probe_model=True)
family.adopt(objectives.family.settings[:8], probe_model=True)
family.adopt((setting for setting in trainer.family.settings if "BERT" not in setting.name), probe_model=True)

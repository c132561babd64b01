"""All rules, in order of code."""

from __future__ import annotations

from ctcguard.errors import SettingsError
from ctcguard.rules._rule import Rule
from ctcguard.rules.dynamics.blank_collapse import BlankCollapse
from ctcguard.rules.dynamics.loss_spike import LossSpike
from ctcguard.rules.dynamics.no_progress import NoProgress
from ctcguard.rules.dynamics.single_symbol_collapse import SingleSymbolCollapse
from ctcguard.rules.gradients.gradient_not_of_softmax import GradientNotOfSoftmax
from ctcguard.rules.gradients.loss_scale_collapse import LossScaleCollapse
from ctcguard.rules.gradients.no_gradient import NoGradient
from ctcguard.rules.gradients.non_finite_gradient import NonFiniteGradient
from ctcguard.rules.guard.alert_undelivered import AlertUndelivered
from ctcguard.rules.guard.guard_blind import GuardBlind
from ctcguard.rules.guard.guard_fault import GuardFault
from ctcguard.rules.lengths.input_length_in_wrong_units import InputLengthInWrongUnits
from ctcguard.rules.lengths.input_length_out_of_range import InputLengthOutOfRange
from ctcguard.rules.lengths.padding_counted_as_frames import PaddingCountedAsFrames
from ctcguard.rules.lengths.target_length_out_of_range import TargetLengthOutOfRange
from ctcguard.rules.lengths.too_few_frames import TooFewFrames
from ctcguard.rules.log_probs.low_precision_log_probs import LowPrecisionLogProbs
from ctcguard.rules.log_probs.non_finite_log_probs import NonFiniteLogProbs
from ctcguard.rules.log_probs.positive_log_prob import PositiveLogProb
from ctcguard.rules.log_probs.probabilities_as_logits import ProbabilitiesAsLogits
from ctcguard.rules.log_probs.unnormalised_log_probs import UnnormalisedLogProbs
from ctcguard.rules.loss.accumulation_scale import AccumulationScale
from ctcguard.rules.loss.hidden_from_log import HiddenFromLog
from ctcguard.rules.loss.implausible_loss import ImplausibleLoss
from ctcguard.rules.loss.loss_disagrees_with_reference import LossDisagreesWithReference
from ctcguard.rules.loss.masked_loss import MaskedLoss
from ctcguard.rules.loss.negative_loss import NegativeLoss
from ctcguard.rules.loss.non_finite_loss import NonFiniteLoss
from ctcguard.rules.model.batch_leak import BatchLeak
from ctcguard.rules.model.noisy_eval import NoisyEval
from ctcguard.rules.model.padding_leak import PaddingLeak
from ctcguard.rules.targets.blank_in_targets import BlankInTargets
from ctcguard.rules.targets.dropped_labels import DroppedLabels
from ctcguard.rules.targets.empty_target import EmptyTarget
from ctcguard.rules.targets.identical_targets import IdenticalTargets
from ctcguard.rules.targets.label_out_of_range import LabelOutOfRange
from ctcguard.rules.targets.negative_label import NegativeLabel
from ctcguard.rules.targets.padding_counted_as_labels import PaddingCountedAsLabels
from ctcguard.rules.vocabulary.blank_disagrees import BlankDisagrees
from ctcguard.rules.vocabulary.blank_out_of_range import BlankOutOfRange
from ctcguard.rules.vocabulary.config_disagrees_with_head import ConfigDisagreesWithHead
from ctcguard.rules.vocabulary.head_too_narrow import HeadTooNarrow
from ctcguard.rules.vocabulary.lossy_round_trip import LossyRoundTrip
from ctcguard.rules.vocabulary.unknown_flood import UnknownFlood

__all__ = [
    "ALL",
    "AccumulationScale",
    "AlertUndelivered",
    "BatchLeak",
    "BlankCollapse",
    "BlankDisagrees",
    "BlankInTargets",
    "BlankOutOfRange",
    "ConfigDisagreesWithHead",
    "DroppedLabels",
    "EmptyTarget",
    "GradientNotOfSoftmax",
    "GuardBlind",
    "GuardFault",
    "HeadTooNarrow",
    "HiddenFromLog",
    "IdenticalTargets",
    "ImplausibleLoss",
    "InputLengthInWrongUnits",
    "InputLengthOutOfRange",
    "LabelOutOfRange",
    "LossDisagreesWithReference",
    "LossScaleCollapse",
    "LossSpike",
    "LossyRoundTrip",
    "LowPrecisionLogProbs",
    "MaskedLoss",
    "NegativeLabel",
    "NegativeLoss",
    "NoGradient",
    "NoProgress",
    "NoisyEval",
    "NonFiniteGradient",
    "NonFiniteLogProbs",
    "NonFiniteLoss",
    "PaddingCountedAsFrames",
    "PaddingCountedAsLabels",
    "PaddingLeak",
    "PositiveLogProb",
    "ProbabilitiesAsLogits",
    "Rule",
    "SingleSymbolCollapse",
    "TargetLengthOutOfRange",
    "TooFewFrames",
    "UnknownFlood",
    "UnnormalisedLogProbs",
    "rule_named",
]

ALL: tuple[type[Rule], ...] = (
    HeadTooNarrow,
    BlankDisagrees,
    BlankOutOfRange,
    ConfigDisagreesWithHead,
    UnknownFlood,
    LossyRoundTrip,
    LabelOutOfRange,
    NegativeLabel,
    BlankInTargets,
    EmptyTarget,
    DroppedLabels,
    IdenticalTargets,
    PaddingCountedAsLabels,
    TooFewFrames,
    InputLengthOutOfRange,
    TargetLengthOutOfRange,
    InputLengthInWrongUnits,
    PaddingCountedAsFrames,
    PositiveLogProb,
    UnnormalisedLogProbs,
    NonFiniteLogProbs,
    ProbabilitiesAsLogits,
    LowPrecisionLogProbs,
    NegativeLoss,
    NonFiniteLoss,
    MaskedLoss,
    ImplausibleLoss,
    LossDisagreesWithReference,
    AccumulationScale,
    HiddenFromLog,
    NonFiniteGradient,
    GradientNotOfSoftmax,
    NoGradient,
    LossScaleCollapse,
    BlankCollapse,
    SingleSymbolCollapse,
    NoProgress,
    LossSpike,
    BatchLeak,
    PaddingLeak,
    NoisyEval,
    GuardBlind,
    GuardFault,
    AlertUndelivered,
)


def rule_named(text: str) -> type[Rule]:
    """The rule with that code (``"CTC402"``, ``"402"``) or name.

    Raises
    ------
    SettingsError
        When there is none; the message lists all.
    """
    wanted = text.strip().lower().removeprefix("ctc")
    for rule in ALL:
        if wanted in (rule.code.lower().removeprefix("ctc"), rule.name()):
            return rule
    known = ", ".join(f"{rule.code} {rule.name()}" for rule in ALL)
    raise SettingsError(f"{text!r} is no rule of ctcguard; the rules are: {known}")

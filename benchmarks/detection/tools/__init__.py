"""The tools of the table, in the order of its columns."""

from __future__ import annotations

from benchmarks.detection.tools._tool import Tool
from benchmarks.detection.tools.anomaly_mode import AnomalyMode
from benchmarks.detection.tools.checkify import Checkify
from benchmarks.detection.tools.ctcguard import CTCGuard
from benchmarks.detection.tools.debug_nans import DebugNans
from benchmarks.detection.tools.early_stopping import EarlyStopping
from benchmarks.detection.tools.framework import Framework
from benchmarks.detection.tools.loss_watcher import LossWatcher
from benchmarks.detection.tools.spike_detection import SpikeDetection
from benchmarks.detection.tools.torch_audit import TorchAudit
from benchmarks.detection.tools.traincheck import TrainCheck
from benchmarks.detection.tools.underflow_overflow import UnderflowOverflow

ALL: tuple[type[Tool], ...] = (
    CTCGuard,
    Framework,
    LossWatcher,
    AnomalyMode,
    UnderflowOverflow,
    EarlyStopping,
    SpikeDetection,
    TorchAudit,
    TrainCheck,
    DebugNans,
    Checkify,
)
NAMED = {tool.name: tool for tool in ALL}

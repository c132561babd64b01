"""Nothing attached: the framework, and the defaults of the Hugging Face Trainer."""

from __future__ import annotations

from benchmarks.detection.tools._tool import JAX, TORCH, Tool


class Framework(Tool):
    """Notices only what it refuses with an exception."""

    name = "framework"
    title = "framework alone (hf: Trainer defaults)"
    how = "nothing attached; hf pairs run a Trainer with its defaults; it notices only by raising"
    folders = (*TORCH, *JAX)

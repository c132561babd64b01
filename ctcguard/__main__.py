"""``python -m ctcguard``, for instance under ``torchrun … -m ctcguard run train.py``."""

from __future__ import annotations

import sys

from ctcguard.cli import main

if __name__ == "__main__":
    sys.exit(main())

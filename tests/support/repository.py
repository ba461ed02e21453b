"""Where the repository is, for tests that read its documents, manifests and sources."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "tests" / "recorded"
"""What real kubelets, runtimes and kernels showed: `make e2e` writes it, unit tests read it."""

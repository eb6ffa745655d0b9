"""What of this checkout is measured: the testbed, and the real model with questions for it."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[1]
TESTBED = _ROOT / "examples" / "overthinker"
SMOLLM2 = _ROOT / "build" / "smollm2"  # as `make test-smollm2` converts it
GSM8K = _ROOT / "tests" / "data" / "questions" / "gsm8k_test_25.jsonl.gz"

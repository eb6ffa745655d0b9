"""SmolLM2-135M-Instruct as `make test-smollm2` converts it, commands with it, and what plain libraries make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.forks import COMMAND_LINE, Fork, Forks

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "build" / "smollm2"
CLOSE = 5e-4  # nats: float32 on a CPU through 30 layers


def require_converted() -> None:
    assert (MODEL / "model.safetensors").is_file(), "these tests need the real model: `make test-smollm2` converts it"


def start(forks: Forks, place: Path, name: str, *words: str | Path, script: str = COMMAND_LINE) -> Fork:
    """A command with the configuration place/run.yaml, if it takes one; --json and nothing else on stdout."""
    settings: list[str | Path] = [] if words[0] == "export" else ["--config", place / "run.yaml"]
    arguments: list[str | Path] = [*words, *settings, "--json", "--offline"]
    return forks.start(arguments, place, name, {"OMP_NUM_THREADS": "2", "DRAWN": str(place / "drawn.txt")}, script)


def done(process: Fork, code: int = 0) -> dict[str, Any]:
    """What the command has given; {} when it was to fail."""
    process.wait(800)
    assert process.returncode == code, process.err.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(process.out.read_text()) if code == 0 else {}
    return found


def plain_model(folder: Path, adapter: Path | None = None) -> Any:
    """The model in float32 as any user of transformers and peft loads it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    return model.eval()


@torch.inference_mode()
def plain_logprobs(model: Any, ids: list[int], begin: int) -> np.ndarray:
    """float64 log-probabilities of ids[begin:], the sequence by itself through all of the model, nothing of ours."""
    rows = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, begin - 1 : -1].double().log_softmax(-1)
    found: np.ndarray = rows.gather(1, torch.tensor(ids[begin:])[:, None])[:, 0].numpy()
    return found

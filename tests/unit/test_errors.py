"""A name that there is not is refused with the nearest that there is, whatever list of names it is to be from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vpgea.cluster.site import Site
from vpgea.config.resolve import resolve
from vpgea.errors import UsageError, did_you_mean, nearest
from vpgea.foreign.recognise import read_log
from vpgea.grading.registry import is_own_grader
from vpgea.prompts.texts import load_template
from vpgea.protocols.protocol import find_protocol
from vpgea.questions.benchmarks import find_evalset


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("other-note", "vpg-ea/other-note"),  # spelt more like another-note
        ("vpg-ea/other-not", "vpg-ea/other-note"),
        ("rank", "distill.lora.rank"),
        ("GRPO", "grpo"),
        ("gpro", "grpo"),
        ("x/grpo", "grpo"),
        ("nothing at all", None),
        ("", None),
    ],
)
def test_the_nearest_name_shares_the_last_part_or_is_spelt_alike(name: str, meant: str | None) -> None:
    known = ["vpg-ea/other-note", "another-note", "distill.lora.rank", "grpo", "grpo-sigmoid-length"]
    assert nearest(name, known) == meant
    assert did_you_mean(name, known, "see there") == (f"did you mean {meant}? see there" if meant else "see there")


def test_of_several_with_the_same_last_part_the_one_spelt_most_alike_is_meant() -> None:
    assert nearest("evel.seed", ["rollout.seed", "eval.seed", "distill.seed"]) == "eval.seed"


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "objective": (lambda: resolve(options={"objective": "other-note"}), "vpg-ea/other-note"),
    "engine": (lambda: resolve(sets=["rollout.engine=sglng"]), "sglang"),
    "dtype": (lambda: resolve(sets=["model.dtype=fp32"]), "float32"),
    "logger": (lambda: resolve(sets=["distill.log_to=[wandb, tensorbord]"]), "tensorboard"),
    "key": (lambda: resolve(sets=["rollout.temprature=1"]), "rollout.temperature"),
    "benchmark": (lambda: find_evalset("GPQA"), "gpqa-diamond"),
    "protocol": (lambda: find_protocol("gsm8k", "lm_eval"), "lm-eval"),
    "grader": (lambda: is_own_grader("maths"), "math"),
    "template": (lambda: load_template("defualt"), "default"),
    "tool": (lambda: read_log(Path("log"), "lm_eval"), "lm-eval"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_every_closed_list_of_names_tells_which_was_meant(what: str) -> None:
    refused, meant = REFUSED[what]
    with pytest.raises(UsageError) as told:
        refused()
    assert told.value.mend.startswith(f"did you mean {meant}? ")


def test_a_key_of_the_site_file_too(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("inference:\n  partion: gpu\n")
    with pytest.raises(UsageError) as told:
        Site.read(file)
    assert "inference.partion (line 2): unknown key; did you mean inference.partition?" in told.value.why

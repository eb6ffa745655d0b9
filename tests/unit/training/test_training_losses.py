"""The step's loss through the real trainer, value and gradient, against sums over single tokens in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.models import causal_model, roles_of
from tests.support.selection_rows import VOCABULARY, Row, distill_config, sample_rows, write_selection
from vpgea.config.schema import RunConfig
from vpgea.modeling.packing import ATTENTION
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.schemas import POSTERIOR, PRIOR
from vpgea.training.data import TrainingSet
from vpgea.training.losses import LossTerms
from vpgea.training.trainer import Trainer

FORMS = ["sampled", "dense-cv", "dense"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-NeoX: its layer norms compute in float64, where those of Qwen2 fall back to float32."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("base")
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the base model, so that base, start and student are three different models."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    model = get_peft_model(
        causal_model(distill_config(base).model), LoraConfig(r=4, lora_alpha=8.0, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture
def config_of(base: Path, adapter: Path) -> Any:
    def make(train: str = "full", **dotted: Any) -> RunConfig:
        own = {"model__adapter": str(adapter), "distill__lora__rank": 4, "distill__lora__alpha": 8.0}
        return distill_config(base, distill__train=train, **(own if train == "lora" else {}), **dotted)

    return make


def float64_trainer(config: RunConfig, rows: Sequence[Row], folder: Path) -> Trainer:
    """A trainer whose models compute in float64, all questions in one step."""
    data = TrainingSet(CompletePhase.open(write_selection(folder / "filter", config, rows), "filter"), config.distill)
    roles = roles_of(config)
    for policy in {roles.student, *(role.policy for role in (roles.reference, roles.teacher) if role is not None)}:
        policy.double()
    trainer = Trainer(
        config,
        data,
        roles,
        PhaseFolder.open(folder / "out", Manifest(phase="distill", identity={}, inputs={}, config={})),
    )
    for path in data.paths:  # the only step is the first, which would say itself what pi_old is
        if path.is_prior:
            trainer.old_logprobs.values[path.index] = roles.student_logprobs([path])
    return trainer


def move_away(trainer: Trainer, scale: float = 0.15) -> None:
    """Change the student as many steps would: then pi_theta is neither pi_old nor the reference."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=scale)


def loss_and_gradient(trainer: Trainer) -> tuple[LossTerms, dict[str, Tensor]]:
    trainer.optimizer.zero_grad()
    terms = trainer.accumulate(trainer.data.step(0))
    return terms, {name: p.grad.clone() for name, p in trainer.trainable.items() if p.grad is not None}


def row_logprobs(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """(T, V) log-probabilities of the completion's positions, one sequence at a time."""
    logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
    assert logits.dtype == torch.float64
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


class Naive:
    """The formulas of the method, token by token."""

    def __init__(self, config: RunConfig, rows: Sequence[Row], student: Any) -> None:
        self.distill, self.rows, self.student = config.distill, rows, student
        self.start = causal_model(config.model).double()
        self.reference = causal_model(config.model.model_copy(update={"adapter": None})).double()
        self.truncated = rows[0]["temperature"] != 1
        self.ratios: list[tuple[float, float]] = []  # (advantage, rho) of every token of the policy gradient
        self.weights: list[float] = []
        self.credits: list[float] = []
        self.kls: list[float] = []

    def kl(self) -> Any:
        posterior = [row for row in self.rows if row["view"] == POSTERIOR]
        mean_length = sum(row["thinking_tokens"] for row in posterior) / len(posterior)
        questions = len({row["question_id"] for row in self.rows})
        per_question = len(posterior) / questions
        total: Any = 0.0
        for row in posterior:
            others = [
                r["gate"]
                for r in posterior
                if r["question_id"] == row["question_id"] and r["sample_index"] != row["sample_index"]
            ]
            total = total + self.path_kl(row, row["gate"], sum(others) / len(others))
        return total / (questions * per_question * mean_length)

    def path_kl(self, row: Row, g: float, b: float) -> Any:
        ids = self.path_ids(row)
        log_pi = row_logprobs(self.student, row["prompt_ids"], ids)
        log_q = self.log_q(row, ids)
        total: Any = 0.0
        for t, token in enumerate(ids):
            in_thinking = t < row["thinking_tokens"]
            if row["learnt_tokens"] is not None and t >= row["learnt_tokens"]:
                g = 0.0
            if self.distill.kl_form == "sampled" or not in_thinking:
                total = total - g * log_pi[t, token]
            elif self.distill.kl_form == "dense":
                total = total + g * sum(log_q[t, v].exp() * (log_q[t, v] - log_pi[t, v]) for v in range(log_q.shape[1]))
            elif self.distill.kl_form == "reverse":
                total = total + g * (log_pi[t].exp() * (log_pi[t] - log_q[t])).sum()
            else:
                expected = sum(log_q[t, v].exp() * log_pi[t, v] for v in range(log_q.shape[1]))
                total = total - (g - b) * log_pi[t, token] - b * expected
        return total

    @torch.no_grad()
    def log_q(self, row: Row, ids: list[int]) -> Tensor:
        """(T, V) of the teacher, in the posterior view."""
        teacher = {"round": self.start, "current": self.student, "frozen": self.reference}[self.distill.teacher]
        return row_logprobs(teacher, row["posterior_prompt_ids"], ids)

    def path_ids(self, row: Row) -> list[int]:
        """z; with `posterior` its own answer too, with `crossview` a continuation for accepted paths.

        Of a path that is learnt in part that part alone; with `dense-cv` all of z.
        """
        if row["learnt_tokens"] is not None:
            whole = self.distill.kl_form == "dense-cv"
            return list(row["completion_ids"][: row["thinking_tokens"] if whole else row["learnt_tokens"]])
        if self.distill.answer_from == "posterior":
            return list(row["completion_ids"])
        ids: list[int] = row["completion_ids"][: row["thinking_tokens"]]
        return ids + row["crossview_answer_ids"] if self.distill.answer_from == "crossview" and row["gate"] else ids

    def policy_gradient(self) -> Any:
        total: Any = 0.0
        tokens = 0
        for row in self.prior():
            ids = row["completion_ids"]
            tokens += len(ids)
            log_pi = row_logprobs(self.student, row["prompt_ids"], ids)
            with torch.no_grad():
                log_old = row_logprobs(self.start, row["prompt_ids"], ids)
            log_q = self.log_q(row, ids) if self.distill.has_teacher_on_prior else log_old
            for t, token in enumerate(ids):
                a = row["advantage"]
                if self.distill.pg_form == "cross-entropy":
                    total = total + a * log_pi[t, token]
                    continue
                if self.distill.pg_form.endswith("-kl"):
                    pi, q = log_pi[t].exp(), log_q[t].exp()
                    of_reverse = (pi * (log_pi[t] - log_q[t])).sum()
                    kl = of_reverse if self.distill.pg_form == "reverse-kl" else (q * (log_q[t] - log_pi[t])).sum()
                    self.kls.append(float(kl.detach()))
                    total = total - a * kl.clamp(max=self.distill.kl_clip or float("inf"))
                    continue
                if self.distill.pg_form == "credited":
                    ratio = float((log_q[t, token] - log_old[t, token]).exp())
                    clip = self.distill.credit_clip
                    credit = min(max(ratio if a > 0 else 1 / ratio, 1 - clip), 1 + clip)
                    self.credits.append(credit)
                    a = a * credit
                rho = (log_pi[t, token] - log_old[t, token]).exp()
                f = torch.minimum(rho * a, rho.clamp(1 - self.distill.clip_low, 1 + self.distill.clip_high) * a)
                if a < 0:
                    f = torch.maximum(f, torch.tensor(self.distill.dual_clip * a, dtype=torch.float64))
                weight = min(float((log_old[t, token] - row["logprobs"][t]).exp()), self.distill.mismatch_cap)
                self.ratios.append((a, float(rho.detach())))
                self.weights.append(weight)
                total = total + (1.0 if self.truncated else weight) * f
        return total / tokens

    def prior(self) -> list[Row]:
        rows = [row for row in self.rows if row["view"] == PRIOR]
        return [row for row in rows if not (row["cut_off"] and self.distill.mask_truncated)]

    def reference_kl(self) -> Any:
        total: Any = 0.0
        tokens = 0
        for row, ids in self.trained():
            tokens += len(ids)
            log_pi = row_logprobs(self.student, row["prompt_ids"], ids)
            with torch.no_grad():
                log_ref = row_logprobs(self.reference, row["prompt_ids"], ids)
            for t, token in enumerate(ids):
                if self.distill.reference_kl == "exact":
                    total = total + (log_pi[t].exp() * (log_pi[t] - log_ref[t])).sum()
                    continue
                weight = 1.0
                known = row["view"] == PRIOR or t < row["thinking_tokens"]
                if known and not self.truncated:
                    weight = min(
                        float((log_pi[t, token].detach() - row["logprobs"][t]).exp()), self.distill.mismatch_cap
                    )
                total = total + weight * 0.5 * (log_pi[t, token] - log_ref[t, token]) ** 2
        return total / tokens

    def trained(self) -> list[tuple[Row, list[int]]]:
        """The paths of the other two terms: dense-cv trains on rejected ones as well."""
        found = [(row, row["completion_ids"]) for row in self.prior()] if self.distill.pg_weight else []
        if self.distill.kl_weight:
            posterior = [row for row in self.rows if row["view"] == POSTERIOR]
            found += [(r, self.path_ids(r)) for r in posterior if r["gate"] or self.distill.kl_form == "dense-cv"]
        return found


CASES: dict[str, dict[str, Any]] = {
    "sampled": {"kl_form": "sampled"},
    "dense": {"kl_form": "dense"},
    "dense-cv": {"kl_form": "dense-cv"},
    "dense-frozen": {"kl_form": "dense", "teacher": "frozen"},
    "dense-cv-current": {"kl_form": "dense-cv", "teacher": "current"},
    "crossview": {"answer_from": "crossview"},
    "crossview-dense-cv": {"answer_from": "crossview", "kl_form": "dense-cv"},
    "kl-alone": {"kl_form": "dense-cv", "pg_weight": 0.0, "reference_weight": 0.0},
    "pg-alone": {"kl_weight": 0.0, "reference_weight": 0.0},
    "k2": {"reference_kl": "k2", "answer_from": "crossview"},
    "mask-truncated": {"mask_truncated": True},
    "reverse": {"kl_form": "reverse"},
    "reverse-current": {"kl_form": "reverse", "teacher": "current"},
    "cross-entropy": {"pg_form": "cross-entropy"},
    "own-answer": {"answer_from": "posterior"},
    "credited": {"pg_form": "credited", "credit_clip": 0.3},
    "forward-kl": {"pg_form": "forward-kl", "kl_clip": 0.625, "kl_weight": 0.0},
    "reverse-kl": {"pg_form": "reverse-kl", "kl_form": "dense"},
}
IN_PART: dict[str, dict[str, Any]] = {  # paths of which the beginning is learnt
    "sampled": {"reference_kl": "k2", "answer_from": "crossview"},
    "dense": {"kl_form": "dense", "answer_from": "posterior"},
    "dense-cv": {"kl_form": "dense-cv", "answer_from": "crossview"},
}


def in_part(rows: Sequence[Row]) -> list[Row]:
    """One posterior path of each question is learnt in part: its gate is that of the first half of z."""
    return [{**row, "learnt_tokens": row["thinking_tokens"] // 2 if row["gate"] == 1.25 else None} for row in rows]


def quantised(rows: Sequence[Row]) -> list[Row]:
    """The same rows with log-probabilities as they come back from float32 columns."""
    return [{**row, "logprobs": torch.tensor(row["logprobs"]).tolist()} for row in rows]


@pytest.mark.parametrize("form", IN_PART)
def test_masked_tokens_have_no_gradient(form: str, config_of: Any, tmp_path: Path) -> None:
    """Value and gradient are the formulas', whatever the batches; what is masked may be anything.

    Under `dense-cv` the control variate goes on over the masked tokens, with g = 0 as over a rejected path.
    """
    found = []
    for size in (60, 20):  # tokens of a micro-batch
        config = config_of(distill__max_tokens_per_batch=size, **{f"distill__{k}": v for k, v in IN_PART[form].items()})
        rows = quantised(in_part(sample_rows(config, questions=2)))
        trainer = float64_trainer(config, rows, tmp_path / str(size))
        move_away(trainer)
        trainer.roles.student.eval()
        found.append(loss_and_gradient(trainer))
    student = trainer.roles.student
    student.causal.set_attn_implementation("sdpa")
    naive = Naive(config, rows, student.model)
    loss = naive.kl() - naive.policy_gradient() + config.distill.reference_weight * naive.reference_kl()
    gradient = torch.autograd.grad(loss, list(trainer.trainable.values()), allow_unused=True)
    for terms, own in found:
        assert terms.kl == pytest.approx(float(naive.kl().detach()), abs=1e-9)
        assert terms.loss == pytest.approx(float(loss.detach()), abs=1e-9)
        for name, value in zip(trainer.trainable, gradient, strict=True):
            torch.testing.assert_close(own[name], value, atol=1e-9, rtol=1e-8)
    if form == "dense-cv":
        return
    for row in rows:
        if row["learnt_tokens"] is not None:
            kept = row["completion_ids"][: row["learnt_tokens"]]
            row["completion_ids"] = kept + [7] * (len(row["completion_ids"]) - len(kept))
    changed = float64_trainer(config, rows, tmp_path / "changed")
    move_away(changed)
    changed.roles.student.eval()
    _, after = loss_and_gradient(changed)
    assert all(torch.equal(after[name], value) for name, value in found[-1][1].items())


# The sampler's log-probabilities enter the policy gradient and k2 alone.
@pytest.mark.parametrize(("case", "temperature"), [*((case, 1.0) for case in CASES), ("sampled", 0.75), ("k2", 0.75)])
@pytest.mark.parametrize("train", ["full", "lora"])
def test_value_and_gradient_are_those_of_the_formulas(
    case: str, temperature: float, train: str, config_of: Any, tmp_path: Path
) -> None:
    weights = {"kl_weight": 0.7, "pg_weight": 1.3, "reference_weight": 0.2, **CASES[case]}
    config = config_of(train, distill__max_tokens_per_batch=60, **{f"distill__{k}": v for k, v in weights.items()})
    rows = quantised([{**row, "temperature": temperature} for row in sample_rows(config, questions=2)])
    if config.distill.has_teacher_on_prior:
        rows = [{**row, "posterior_prompt_ids": [*row["prompt_ids"], 90, 95]} for row in rows]
    if config.distill.pg_form.endswith("-kl"):
        rows = [{**row, "advantage": row["advantage"] and abs(row["advantage"])} for row in rows]
    trainer = float64_trainer(config, rows, tmp_path)
    move_away(trainer)
    trainer.roles.student.eval()
    student = trainer.roles.student
    student.causal.set_attn_implementation("sdpa")  # the formulas' sequences go through alone
    naive = Naive(config, rows, student.model)
    expected = {
        "kl": naive.kl() if weights["kl_weight"] else torch.tensor(0.0),
        "policy_gradient": naive.policy_gradient() if weights["pg_weight"] else torch.tensor(0.0),
        "reference_kl": naive.reference_kl() if weights["reference_weight"] else torch.tensor(0.0),
    }
    loss = (
        weights["kl_weight"] * expected["kl"]
        - weights["pg_weight"] * expected["policy_gradient"]
        + weights["reference_weight"] * expected["reference_kl"]
    )
    gradient = torch.autograd.grad(loss, list(trainer.trainable.values()), allow_unused=True)
    student.causal.set_attn_implementation(ATTENTION)
    terms, found = loss_and_gradient(trainer)
    for name, value in expected.items():
        assert getattr(terms, name) == pytest.approx(float(value.detach()), abs=1e-9), name
    assert terms.loss == pytest.approx(float(loss.detach()), abs=1e-9)
    for name, value in zip(trainer.trainable, gradient, strict=True):
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=1e-8)
    if weights["pg_weight"] and config.distill.pg_form == "clipped":
        assert any(a > 0 and rho > 1.28 for a, rho in naive.ratios), "the upper clip never acts"
        assert any(a < 0 and rho < 0.8 for a, rho in naive.ratios), "the lower clip never acts"
        assert any(a < 0 and rho > 3 for a, rho in naive.ratios), "the dual clip never acts"
        assert 0 < sum(weight == 2.0 for weight in naive.weights) < len(naive.weights), "the cap never acts"
        clipped = sum(rho > 1.28 if a > 0 else rho < 0.8 for a, rho in naive.ratios)
        assert terms.clipped_tokens == clipped
        assert terms.pg_tokens == len(naive.ratios)
    if config.distill.pg_form == "credited":
        low, high = 1 - config.distill.credit_clip, 1 + config.distill.credit_clip
        assert {low, high} < set(naive.credits), "a bound of the credit never acts"
    if config.distill.kl_clip is not None:
        assert terms.clipped_kl_tokens == sum(kl > config.distill.kl_clip for kl in naive.kls)
        assert 0 < terms.clipped_kl_tokens < len(naive.kls) or train == "lora", (
            "the bound of the KL never acts, or always"
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("train", ["full", "lora"])
def test_loss_does_not_depend_on_how_the_batch_is_cut(form: str, train: str, config_of: Any, tmp_path: Path) -> None:
    """The same eight paths as 1 x 8, 2 x 4 and 4 x 2 micro-batches."""
    found = {}
    for size in (8, 4, 2):  # paths, of at most 16 tokens each
        config = config_of(
            train, distill__kl_form=form, distill__max_tokens_per_batch=16 * size, distill__answer_from="crossview"
        )
        rows = [row for row in sample_rows(config, questions=2) if row["sample_index"] < 2]
        trainer = float64_trainer(config, rows, tmp_path / str(size))
        assert len(trainer.data.paths) == 8
        move_away(trainer)
        found[size] = loss_and_gradient(trainer)
    for size in (4, 2):
        for name in ("loss", "kl", "policy_gradient", "reference_kl"):
            assert getattr(found[size][0], name) == pytest.approx(getattr(found[8][0], name), abs=1e-10)
        for name, gradient in found[8][1].items():
            torch.testing.assert_close(found[size][1][name], gradient, atol=1e-10, rtol=0)


@pytest.mark.parametrize("answer_from", ["none", "crossview"])
@pytest.mark.parametrize("form", FORMS)
def test_the_posteriors_own_answer_changes_no_gradient(
    form: str, answer_from: str, config_of: Any, tmp_path: Path
) -> None:
    config = config_of("lora", distill__kl_form=form, distill__answer_from=answer_from, distill__reference_kl="k2")
    rows = sample_rows(config, questions=2)

    def gradients(name: str, answer: list[int] | None, thinking: list[int] | None = None) -> dict[str, Tensor]:
        changed = [{**row} for row in rows]
        for row in changed:
            if row["view"] == POSTERIOR:
                z, y = row["completion_ids"][: row["thinking_tokens"]], row["completion_ids"][row["thinking_tokens"] :]
                z, y = (thinking or z[:1]) + z[1:], y if answer is None else answer
                row["completion_ids"] = z + y
                row["logprobs"] = row["logprobs"][: len(z)] + [-1.0] * len(y)
        return loss_and_gradient(float64_trainer(config, changed, tmp_path / name))[1]

    before = gradients("own", None)
    for index, answer in enumerate(([], [7], [8, 9, 10, 11, 12, 13])):
        after = gradients(f"answer-{index}", answer)
        assert all(torch.equal(before[name], after[name]) for name in before)
    moved = gradients("thinking", None, [3])
    assert not all(torch.equal(before[name], moved[name]) for name in before)


def test_the_teacher_and_the_reference_get_no_gradient(config_of: Any, tmp_path: Path) -> None:
    config = config_of("full", distill__kl_form="dense-cv")
    trainer = float64_trainer(config, sample_rows(config), tmp_path)
    loss_and_gradient(trainer)
    assert trainer.roles.teacher is not None
    assert trainer.roles.reference is not None
    assert trainer.roles.teacher.policy is trainer.roles.reference.policy  # the model at the start is both: one copy
    assert all(p.grad is None and not p.requires_grad for p in trainer.roles.teacher.policy.parameters())

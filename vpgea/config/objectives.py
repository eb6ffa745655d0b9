"""The objectives that `objective` names: the method, its ablations, the controls of its note, and its rivals.

Each is a composition of pieces that stand elsewhere: which views are sampled, what is checked, what a path is worth,
and which terms the loss has. All share sampling, grading, trainer and evaluation: like is compared with like.
What a rival's paper trains with beyond its objective (batch, learning rate, length of training) is not taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Name = Literal[
    "vpg-ea",
    "vpg-ea/no-posterior",
    "vpg-ea/no-cross-view",
    "vpg-ea/no-note-dependence",
    "vpg-ea/mask-dependent",
    "vpg-ea/free-end",
    "vpg-ea/no-derivation",
    "vpg-ea/no-gate",
    "vpg-ea/importance-gate",
    "vpg-ea/contrast-gate",
    "vpg-ea/dense-kl",
    "vpg-ea/reverse-kl",
    "vpg-ea/no-note",
    "vpg-ea/wrong-note",
    "vpg-ea/other-note",
    "grpo",
    "grpo-sigmoid-length",
    "laser-d",
    "shorter-better",
    "truncate",
    "short-correct",
    "on-policy-sft",
    "star",
    "concise-self-distill",
    "opsd",
    "rlsd",
]


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        formula: What is maximised or minimised, in a line; u, A, g, λ as in docs/method.md.
        source: Where it comes from.
        settings: Dotted key → value of what makes it this objective. Of the keys that make any objective, those that it
            does not name are at their defaults.
    """

    formula: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_CHECKS = ("answerability", "note_dependence", "derivation", "plausibility", "leaks")
_NO_CHECKS = {f"filter.{check}.enabled": False for check in _CHECKS}
_PRIOR_ALONE = {"rollout.posterior_samples": 0}
_NOTED_PRIOR = {**_PRIOR_ALONE, "rollout.noted_prior": True, "filter.utility.length_price": 0.0}
_OURS = "docs/method.md"

OBJECTIVES: dict[Name, Objective] = {
    "vpg-ea": Objective("−w_kl L_D(g) + w_pg J(A) − w_ref R, all checks, u = r e^{−λc}", _OURS),
    "vpg-ea/no-posterior": Objective("J(A) − w_ref R, u = r e^{−λc}: no guidance", _OURS, _PRIOR_ALONE),
    "vpg-ea/no-cross-view": Objective("as vpg-ea; a path whose own answer is right is accepted", _OURS, _NO_CHECKS),
    "vpg-ea/no-note-dependence": Objective(
        "as vpg-ea without note dependence; what derivation cannot judge is accepted",
        _OURS,
        {"filter.note_dependence.enabled": False, "filter.accept_undecided": True},
    ),
    "vpg-ea/mask-dependent": Objective(
        "as vpg-ea; a path is learnt up to its first token that depends on the note",
        _OURS,
        {"filter.note_dependence.dependent": "mask"},
    ),
    "vpg-ea/free-end": Objective(
        "as vpg-ea; that a path ends where it does may depend on the note",
        _OURS,
        {"filter.note_dependence.end": "free"},
    ),
    "vpg-ea/no-derivation": Objective("as vpg-ea without derivation", _OURS, {"filter.derivation.enabled": False}),
    "vpg-ea/no-gate": Objective(
        "as vpg-ea, every accepted path has the mean gate", _OURS, {"filter.advantage.gate": "mean"}
    ),
    "vpg-ea/importance-gate": Objective(
        "as vpg-ea, g_j times w_j^α / mean w^α, w = π/q over a question's accepted paths, α by their ESS",
        _OURS,
        {"filter.advantage.gate": "importance"},
    ),
    "vpg-ea/contrast-gate": Objective(
        "as vpg-ea, g_j times e^{−γ max(D_j, 0)}, D note dependence", _OURS, {"filter.advantage.gate": "contrast"}
    ),
    "vpg-ea/dense-kl": Objective(
        "as vpg-ea, L_D over the vocabulary: Σ_t g KL(q(·|z_<t) ‖ π_θ)", _OURS, {"distill.kl_form": "dense"}
    ),
    "vpg-ea/reverse-kl": Objective(
        "as vpg-ea/dense-kl with Σ_t g KL(π_θ ‖ q(·|z_<t))", _OURS, {"distill.kl_form": "reverse"}
    ),
    "vpg-ea/no-note": Objective(
        "as vpg-ea, the note names no answer: what is the style of the prompt worth?", _OURS, {"views.note": "none"}
    ),
    "vpg-ea/wrong-note": Objective(
        "as vpg-ea, the note names another value, and paths are graded against the true one",
        _OURS,
        {"views.note": "wrong"},
    ),
    "vpg-ea/other-note": Objective(
        "as vpg-ea, the note names the answer of another question, and paths are graded against the true one",
        _OURS,
        {"views.note": "other"},
    ),
    "grpo": Objective(
        "J(A), u = r: correctness alone", "arXiv 2402.03300", {**_PRIOR_ALONE, "filter.utility.length_price": 0.0}
    ),
    "grpo-sigmoid-length": Objective(
        "J(A), u = r (1 − λ σ((ℓ − mean) / std)) over the question's correct samples",
        "arXiv 2502.04463",
        {**_PRIOR_ALONE, "filter.utility.kind": "sigmoid"},
    ),
    "laser-d": Objective(
        "J(A), u = r (1 + λ 1[ℓ ≤ L_d]), L_d the target length of questions as hard as this one",
        "arXiv 2505.15612",
        {**_PRIOR_ALONE, "filter.utility.kind": "step"},
    ),
    "shorter-better": Objective(
        "J(A), u = r − λ |ℓ − ℓ*| / L_ref, ℓ* the shortest correct sample's length, without one the mean length",
        "arXiv 2504.21370",
        {**_PRIOR_ALONE, "filter.utility.kind": "distance"},
    ),
    "truncate": Objective(
        "J(A), u = r, and what is cut off is wrong; the cap falls from round to round by loop.cap_decay",
        "arXiv 2504.01296, arXiv 2510.15110",
        {**_PRIOR_ALONE, "filter.utility.length_price": 0.0},
    ),
    "short-correct": Objective(
        "cross-entropy on correct samples, weighed by max(A, 0), u = r e^{−λc}",
        "best-of-n distillation",
        {**_PRIOR_ALONE, "filter.advantage.kind": "positive", "distill.pg_form": "cross-entropy"},
    ),
    "on-policy-sft": Objective(
        "cross-entropy on correct samples, A = r",
        "rejection sampling, arXiv 2308.01825",
        {
            **_PRIOR_ALONE,
            "filter.utility.length_price": 0.0,
            "filter.advantage.kind": "utility",
            "distill.pg_form": "cross-entropy",
        },
    ),
    "star": Objective(
        "cross-entropy on z and y of posterior samples whose own answer is right, no check, g = 1",
        "rationalisation, arXiv 2203.14465",
        {
            **_NO_CHECKS,
            "rollout.prior_samples": 0,
            "filter.advantage.gate": "one",
            "filter.utility.length_price": 0.0,
            "distill.answer_from": "posterior",
            "distill.pg_weight": 0.0,
        },
    ),
    "concise-self-distill": Objective(
        "−Σ_t KL(π_θ ‖ q(·|z_<t)) along every prior sample, q the same weights told to be concise; no answer, no check",
        "arXiv 2603.05433",
        {
            **_NOTED_PRIOR,
            "views.note": "concise",
            "filter.advantage.kind": "one",
            "distill.pg_form": "reverse-kl",
        },
    ),
    "opsd": Objective(
        "−Σ_t min(KL(q(·|z_<t) ‖ π_θ), 1 nat) along every prior sample, q the same weights with the note",
        "arXiv 2601.18734",
        {
            **_NOTED_PRIOR,
            "filter.advantage.kind": "one",
            "distill.pg_form": "forward-kl",
            "distill.kl_clip": 1.0,
        },
    ),
    "rlsd": Objective(
        "J(A_t), A_t = A clip((q(z_t) / π_old(z_t))^sign(A), 1 − ε_c, 1 + ε_c), u = r",
        "arXiv 2604.03128",
        {**_NOTED_PRIOR, "distill.pg_form": "credited"},
    ),
}

# How much is sampled, what length costs and what bounds a KL are everybody's own choice where an objective does not fix
# them.
_FREE = {
    "rollout.prior_samples",
    "rollout.posterior_samples",
    "filter.utility.length_price",
    "distill.pg_weight",
    "distill.kl_clip",
}
_MAKING = {key for objective in OBJECTIVES.values() for key in objective.settings} - _FREE


def settings_of(name: Name, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key → value of everything that an objective fixes. defaults: of every key."""
    return {key: defaults[key] for key in sorted(_MAKING)} | dict(OBJECTIVES[name].settings)

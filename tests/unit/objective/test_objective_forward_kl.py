"""The gated forward KL: against float64 formulas, by enumeration, and on a tree with a leaking teacher."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor

from vpgea.modeling.logprobs import log_softmax, token_logprobs
from vpgea.objective import forward_kl
from vpgea.objective.forward_kl import other_gates_mean
from vpgea.objective.normalisers import Normalisers
from vpgea.objective.vocabulary import vocabulary_sums

T, V = 7, 5


# The forms as functions of logits, as a model gives them.


def sampled(logits: Tensor, targets: Tensor, gate: Tensor) -> Tensor:
    return forward_kl.sampled(vocabulary_sums(logits, targets).logprobs, gate)


def dense(logits: Tensor, teacher: Tensor, gate: Tensor) -> Tensor:
    sums = vocabulary_sums(logits, torch.zeros(len(logits), dtype=torch.long), teacher)
    return forward_kl.dense(sums.guided, sums.teacher, gate)


def reverse(logits: Tensor, teacher: Tensor, gate: Tensor) -> Tensor:
    targets = torch.zeros(len(logits), dtype=torch.long)
    return forward_kl.reverse(vocabulary_sums(logits, targets, teacher, with_reverse=True).reverse_kl, gate)


def dense_cv(logits: Tensor, targets: Tensor, teacher: Tensor, gate: Tensor, other: Tensor) -> Tensor:
    sums = vocabulary_sums(logits, targets, teacher)
    return forward_kl.dense_cv(sums.logprobs, sums.guided, gate, other)


def dense_top_k(logits: Tensor, values: Tensor, ids: Tensor, gate: Tensor) -> Tensor:
    return forward_kl.dense_top_k(log_softmax(logits), values, ids, gate)


def dense_cv_top_k(logits: Tensor, targets: Tensor, values: Tensor, ids: Tensor, gate: Tensor, other: Tensor) -> Tensor:
    return forward_kl.dense_cv_top_k(log_softmax(logits), targets, values, ids, gate, other)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "logits": normal(T, V),
        "teacher": 2 * normal(T, V),
        "targets": torch.randint(V, (T,), generator=generator),
        "gate": torch.tensor([1.5, 0.0, 0.3, 2.0, 0.0, 0.7, 1.0], dtype=torch.float64),
        "other": torch.tensor([0.2, 0.4, 0.0, 1.0, 0.0, 0.5, 0.9], dtype=torch.float64),
    }


def probabilities(logits: Tensor) -> list[list[float]]:
    """Softmax by hand, row by row, in Python floats."""
    rows = []
    for row in logits.detach().tolist():
        exponentials = [math.exp(value) for value in row]
        rows.append([value / sum(exponentials) for value in exponentials])
    return rows


def top_k_of(teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top = torch.log_softmax(teacher, -1).topk(k, -1)
    return top.values, top.indices


def test_values_agree_with_the_formulas_written_out(batch: dict[str, Tensor]) -> None:
    pi, q = probabilities(batch["logits"]), probabilities(batch["teacher"])
    targets, gate, other = batch["targets"].tolist(), batch["gate"].tolist(), batch["other"].tolist()
    found = sampled(batch["logits"], batch["targets"], batch["gate"])
    expected = [-gate[t] * log(pi[t][targets[t]]) for t in range(T)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    found = dense(batch["logits"], batch["teacher"], batch["gate"])
    expected = [gate[t] * sum(q[t][v] * log(q[t][v] / pi[t][v]) for v in range(V)) for t in range(T)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    found = reverse(batch["logits"], batch["teacher"], batch["gate"])
    expected = [gate[t] * sum(pi[t][v] * log(pi[t][v] / q[t][v]) for v in range(V)) for t in range(T)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    found = dense_cv(batch["logits"], batch["targets"], batch["teacher"], batch["gate"], batch["other"])
    expected = [
        -(gate[t] - other[t]) * log(pi[t][targets[t]]) - other[t] * sum(q[t][v] * log(pi[t][v]) for v in range(V))
        for t in range(T)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    values, ids = top_k_of(batch["teacher"], 2)
    found = dense_top_k(batch["logits"], values, ids, batch["gate"])
    expected = []
    for t, top in enumerate(ids.tolist()):
        q_tail, pi_tail = 1 - sum(q[t][v] for v in top), 1 - sum(pi[t][v] for v in top)
        kl = sum(q[t][v] * log(q[t][v] / pi[t][v]) for v in top) + q_tail * log(q_tail / pi_tail)
        expected.append(gate[t] * kl)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    found = dense_cv_top_k(batch["logits"], batch["targets"], values, ids, batch["gate"], batch["other"])
    expected = []
    for t, top in enumerate(ids.tolist()):
        q_tail, pi_tail = 1 - sum(q[t][v] for v in top), 1 - sum(pi[t][v] for v in top)
        mean = sum(q[t][v] * log(pi[t][v]) for v in top) + q_tail * log(pi_tail)
        own = log(pi[t][targets[t]] if targets[t] in top else pi_tail)
        expected.append(-gate[t] * log(pi[t][targets[t]]) + other[t] * (own - mean))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert 0 < sum(target in top for target, top in zip(targets, ids.tolist(), strict=True)) < T


def forms(batch: dict[str, Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Every form as a function of the student's logits alone."""
    values, ids = top_k_of(batch["teacher"], 2)
    targets, teacher, gate, other = (batch[key] for key in ("targets", "teacher", "gate", "other"))
    return {
        "sampled": lambda x: sampled(x, targets, gate),
        "dense_cv": lambda x: dense_cv(x, targets, teacher, gate, other),
        "dense": lambda x: dense(x, teacher, gate),
        "reverse": lambda x: reverse(x, teacher, gate),
        "dense_top_k": lambda x: dense_top_k(x, values, ids, gate),
        "dense_cv_top_k": lambda x: dense_cv_top_k(x, targets, values, ids, gate, other),
    }


FORMS = ["sampled", "dense_cv", "dense", "reverse", "dense_top_k", "dense_cv_top_k"]


@pytest.mark.parametrize("name", FORMS)
def test_gradients(batch: dict[str, Tensor], name: str) -> None:
    assert torch.autograd.gradcheck(forms(batch)[name], (batch["logits"].requires_grad_(),))


def test_gradients_have_their_closed_form(batch: dict[str, Tensor]) -> None:
    logits = batch["logits"].requires_grad_()
    pi, q = torch.softmax(logits.detach(), -1), torch.softmax(batch["teacher"], -1)
    one_hot = torch.nn.functional.one_hot(batch["targets"], V).double()
    gate = batch["gate"][:, None]
    for name, expected in {"sampled": gate * (pi - one_hot), "dense": gate * (pi - q)}.items():
        (gradient,) = torch.autograd.grad(forms(batch)[name](logits).sum(), logits)
        torch.testing.assert_close(gradient, expected, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_float32_agrees_with_float64_and_bfloat16_is_reduced_in_float32(batch: dict[str, Tensor], name: str) -> None:
    expected = forms(batch)[name](batch["logits"])
    low = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    found = forms(low)[name](low["logits"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    assert forms(low)[name](low["logits"].bfloat16()).dtype == torch.float32


def test_the_teacher_is_never_trained(batch: dict[str, Tensor]) -> None:
    logits, teacher = batch["logits"].requires_grad_(), batch["teacher"].requires_grad_()
    values, ids = top_k_of(teacher, 2)
    losses = [
        dense(logits, teacher, batch["gate"]),
        reverse(logits, teacher, batch["gate"]),
        dense_cv(logits, batch["targets"], teacher, batch["gate"], batch["other"]),
        dense_top_k(logits, values, ids, batch["gate"]),
        dense_cv_top_k(logits, batch["targets"], values, ids, batch["gate"], batch["other"]),
    ]
    for loss in losses:
        loss.sum().backward(retain_graph=True)
    assert teacher.grad is None
    assert logits.grad is not None


@pytest.mark.parametrize("name", FORMS)
def test_nothing_accepted_is_exactly_zero(batch: dict[str, Tensor], name: str) -> None:
    batch["gate"], batch["other"] = torch.zeros(T), torch.zeros(T)
    batch["logits"][0, 0] = float("-inf")
    batch["targets"][0] = 0  # not even an impossible token
    logits = batch["logits"].requires_grad_()
    loss = forms(batch)[name](logits).sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_top_k_is_a_lower_bound_that_tightens(batch: dict[str, Tensor]) -> None:
    gate = torch.ones(T)
    full = dense(batch["logits"], batch["teacher"], gate)
    bounds = [dense_top_k(batch["logits"], *top_k_of(batch["teacher"], k), gate) for k in range(1, V)]
    for looser, tighter in itertools.pairwise(bounds):
        assert (looser <= tighter + 1e-12).all()
    assert (bounds[0] < full).all()
    torch.testing.assert_close(bounds[-1], full)  # one token in the tail: nothing is lumped together


def test_top_k_floors_the_teachers_tail_and_renormalises_nothing() -> None:
    student = torch.zeros(1, 4, dtype=torch.float64)
    top = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()  # no mass is left
    found = dense_top_k(student, top, torch.tensor([[2, 0]]), torch.ones(1, dtype=torch.float64))
    expected = 0.75 * log(0.75 / 0.25) + 0.25 * log(0.25 / 0.25) + 1e-6 * log(1e-6 / 0.5)
    assert found.item() == pytest.approx(expected, abs=1e-15)
    with pytest.raises(AssertionError, match="tail"):
        dense_top_k(student[:, :2], top, torch.tensor([[1, 0]]), torch.ones(1))


def test_vocabulary_entries_masked_in_both_views_do_no_harm(batch: dict[str, Tensor]) -> None:
    def masked(logits: Tensor) -> Tensor:
        return torch.cat([logits, torch.full((T, 2), float("-inf"), dtype=logits.dtype)], -1)

    expected = {name: form(batch["logits"]) for name, form in forms(batch).items()}
    teacher = masked(batch["teacher"])
    logits = masked(batch["logits"]).requires_grad_()
    for name, form in forms({**batch, "teacher": teacher}).items():
        torch.testing.assert_close(form(logits), expected[name])
        (gradient,) = torch.autograd.grad(form(logits).sum(), logits)
        assert gradient.isfinite().all(), name


def test_other_gates_mean() -> None:
    gates = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 4.0], dtype=torch.float64)
    found = other_gates_mean(gates, torch.tensor([0, 2, 0, 1, 2, 0]))
    expected = [3.0, 0.0, 2.5, 0.0, 0.0, 1.5]  # the only path of question 1 has b = 0
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert other_gates_mean(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)


# A tree of two decisions. Token 0 of row 0 leaks; the leaking branch is row 1, the sound one row 2.
LEAK_SHARE = 0.6
TEACHER = torch.tensor([[LEAK_SHARE, 1 - LEAK_SHARE], [0.5, 0.5], [0.3, 0.7]], dtype=torch.float64)
PATHS = [(first, second) for first in (0, 1) for second in (0, 1)]


def rows_of(path: tuple[int, int]) -> list[int]:
    return [0, 1 + path[0]]


def path_probability(path: tuple[int, int]) -> float:
    return float(TEACHER[rows_of(path), list(path)].prod())


def tree_loss(student: Tensor, paths: list[tuple[int, int]], gates: list[float], name: str) -> Tensor:
    """Loss of one question's K posterior paths, normalised as in training."""
    rows = torch.tensor([row for path in paths for row in rows_of(path)])
    gate = torch.tensor(gates, dtype=torch.float64)
    other = other_gates_mean(gate, torch.zeros(len(paths), dtype=torch.int64))
    one = {
        "logits": student[rows],
        "teacher": TEACHER.log()[rows],
        "targets": torch.tensor(paths).flatten(),
        "gate": gate.repeat_interleave(2),
        "other": other.repeat_interleave(2),
    }
    return tree_form(one, name).sum() * Normalisers(1, len(paths), 2.0, 0).kl_scale


def tree_form(one: dict[str, Tensor], name: str) -> Tensor:
    if name == "dense":
        return dense(one["logits"], one["teacher"], one["gate"])
    if name == "dense_cv":
        return dense_cv(one["logits"], one["targets"], one["teacher"], one["gate"], one["other"])
    return sampled(one["logits"], one["targets"], one["gate"])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_dense_cv_has_the_mean_gradient_of_the_sampled_form(k: int) -> None:
    student = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    gate_of = dict(zip(PATHS, [0.0, 1.7, 0.4, 2.0], strict=True))
    mean = {}
    for name in ("sampled", "dense_cv", "dense"):
        loss = torch.zeros((), dtype=torch.float64)
        for paths in itertools.product(PATHS, repeat=k):
            probability = math.prod(path_probability(path) for path in paths)
            loss = loss + probability * tree_loss(student, list(paths), [gate_of[p] for p in paths], name)
        (mean[name],) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(mean["dense_cv"], mean["sampled"], atol=1e-12, rtol=0)
    assert (mean["dense"] - mean["sampled"]).abs().max() > 0.01  # the ablation is another objective


@pytest.mark.parametrize("k", [1, 2, 4])
def test_dense_cv_of_the_likeliest_tokens_is_unbiased_too(batch: dict[str, Tensor], k: int) -> None:
    """Over all pairs of one-token paths at each position; the tail holds from one to four of the five tokens."""
    values, ids = top_k_of(batch["teacher"], k)
    q = torch.softmax(batch["teacher"], -1)
    gate_of = torch.tensor([0.0, 1.7, 0.4, 2.0, 0.0], dtype=torch.float64)
    logits, mean = batch["logits"].requires_grad_(), {}
    for name in ("sampled", "dense_cv_top_k"):
        loss = torch.zeros((), dtype=torch.float64)
        for one, two in itertools.product(range(V), repeat=2):
            targets = torch.full((T,), one)
            gate, other = (gate_of[token].expand(T) for token in (one, two))
            if name == "sampled":
                terms = sampled(logits, targets, gate)
            else:
                terms = dense_cv_top_k(logits, targets, values, ids, gate, other)
            loss = loss + (q[:, one] * q[:, two] * terms).sum()
        (mean[name],) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(mean["dense_cv_top_k"], mean["sampled"], atol=1e-12, rtol=0)


def train_on_tree(name: str, steps: int = 500, k: int = 8, questions: int = 16) -> float:
    """Leak share of a student trained on sampled paths with a perfect filter."""
    generator = torch.Generator().manual_seed(3)
    student = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([student], lr=0.05)
    first_row = TEACHER[0].expand(k * questions, 2)
    for _ in range(steps):
        first = torch.multinomial(first_row, 1, generator=generator).flatten()
        second = torch.multinomial(TEACHER[1 + first], 1, generator=generator).flatten()
        gate = (first == 1).double()
        rows = torch.stack([torch.zeros_like(first), 1 + first], 1).flatten()
        question = torch.arange(questions).repeat_interleave(k)
        one = {
            "logits": student[rows],
            "teacher": TEACHER.log()[rows],
            "targets": torch.stack([first, second], 1).flatten(),
            "gate": gate.repeat_interleave(2),
            "other": other_gates_mean(gate, question).repeat_interleave(2),
        }
        optimiser.zero_grad()
        (tree_form(one, name).sum() * Normalisers(questions, k, 2.0, 0).kl_scale).backward()
        optimiser.step()
    return float(torch.softmax(student.detach(), -1)[0, 0])


@pytest.mark.parametrize("name", ["sampled", "dense_cv"])
def test_a_leaking_teacher_behind_a_perfect_filter_leaves_no_leaks(name: str) -> None:
    assert train_on_tree(name) < 0.01


def test_the_dense_ablation_brings_the_leaks_back() -> None:
    assert train_on_tree("dense") == pytest.approx(LEAK_SHARE, abs=0.02)


@pytest.mark.parametrize("name", FORMS)
def test_loss_does_not_depend_on_how_the_batch_is_cut(name: str) -> None:
    """Eight paths of different length as 1 x 8, 2 x 4, 4 x 2 micro-batches."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([3, 9, 1, 5, 5, 2, 7, 4])
    weights = torch.randn(V, V, generator=generator, dtype=torch.float64).requires_grad_()
    ids = [torch.randint(V, (int(length) + 1,), generator=generator) for length in lengths]
    gates = torch.rand(8, generator=generator, dtype=torch.float64) * (torch.arange(8) % 3 > 0)
    other = other_gates_mean(gates, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    scale = Normalisers(2, 4, float(lengths.double().mean()), 0).kl_scale

    def run(size: int) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), dtype=torch.float64)
        weights.grad = None
        for start in range(0, 8, size):
            part = slice(start, start + size)
            context = torch.cat([path[:-1] for path in ids[part]])
            one = {
                "logits": weights[context],
                "teacher": weights.detach()[context].flip(-1),
                "targets": torch.cat([path[1:] for path in ids[part]]),
                "gate": gates[part].repeat_interleave(lengths[part]),
                "other": other[part].repeat_interleave(lengths[part]),
            }
            loss = forms(one)[name](one["logits"]).sum() * scale
            loss.backward()
            total += loss.detach()
        assert weights.grad is not None
        return total, weights.grad.clone()

    expected, gradient = run(8)
    for size in (4, 2):
        found, other_gradient = run(size)
        torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
        torch.testing.assert_close(other_gradient, gradient, atol=1e-13, rtol=0)


def test_token_logprobs(batch: dict[str, Tensor]) -> None:
    expected = torch.log_softmax(batch["logits"], -1)[torch.arange(T), batch["targets"]]
    torch.testing.assert_close(token_logprobs(batch["logits"], batch["targets"]), expected)


def test_normalisers() -> None:
    assert Normalisers(2, 4, 10.0, 50).kl_scale == 1 / 80
    assert Normalisers(2, 4, 10.0, 50).pg_scale == 1 / 50
    for nothing in (Normalisers(0, 4, 10.0, 0), Normalisers(2, 0, 10.0, 0), Normalisers(2, 4, 0.0, 0)):
        assert nothing.kl_scale == 0
        assert nothing.pg_scale == 0

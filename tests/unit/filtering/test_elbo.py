"""The ELBO estimator against exact enumeration on a toy model whose paths can be listed."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest

from vpgea.config.filtering import UtilityConfig
from vpgea.filtering import elbo
from vpgea.filtering.utility import utility
from vpgea.storage.records import json_of

END, DEPTH, PRICE, REFERENCE = 0, 3, 0.3, 2.0


@dataclass(frozen=True)
class Toy:
    """All paths of a question: token log-probabilities under both views, answer probability s, relative length c."""

    log_pi: list[np.ndarray]
    log_q: list[np.ndarray]
    s: np.ndarray
    c: np.ndarray

    @property
    def pi(self) -> np.ndarray:
        return np.exp([logprobs.sum() for logprobs in self.log_pi])

    @property
    def q(self) -> np.ndarray:
        return np.exp([logprobs.sum() for logprobs in self.log_q])

    @property
    def log_ratio(self) -> np.ndarray:
        """As from stored rows: y's log-probabilities follow those of z and must not count."""
        y = np.array([-3.0, -0.5])
        return np.array(
            [
                elbo.path_log_ratio(np.append(q, y), np.append(pi, y - 1), len(q))
                for q, pi in zip(self.log_q, self.log_pi, strict=True)
            ]
        )

    def exact(self, q: np.ndarray, price: float = PRICE) -> float:
        """E_q[log s - price c] - KL(q || pi) by enumeration."""
        return float((q * (np.log(self.s) - price * self.c - np.log(q) + np.log(self.pi))).sum())

    def bound(self, price: float = PRICE) -> float:
        return float(np.log((self.pi * self.s * np.exp(-price * self.c)).sum()))

    def estimate(self, rows: np.ndarray, log_ratio: np.ndarray, question: np.ndarray) -> elbo.ElboEstimate:
        return elbo.estimate(question, np.log(self.s)[rows], self.c[rows], log_ratio[rows], PRICE)


def make_toy(seed: int) -> Toy:
    """A tree over {END, 1, 2}; after DEPTH tokens only END is left, so every path ends with END: 15 paths."""
    rng = np.random.default_rng(seed)
    paths = [(*body, END) for depth in range(DEPTH + 1) for body in itertools.product((1, 2), repeat=depth)]
    tables: list[dict[tuple[int, ...], np.ndarray]] = []
    for _ in range(2):
        prefixes = sorted({path[:position] for path in paths for position in range(len(path))})
        tables.append({p: np.eye(3)[END] if len(p) == DEPTH else rng.dirichlet(np.ones(3)) for p in prefixes})

    def logprobs(table: dict[tuple[int, ...], np.ndarray]) -> list[np.ndarray]:
        return [np.log([table[path[:t]][token] for t, token in enumerate(path)]) for path in paths]

    length = np.array([len(path) for path in paths], float)
    return Toy(logprobs(tables[0]), logprobs(tables[1]), rng.uniform(0.05, 0.95, len(paths)), length / REFERENCE)


def test_toy_views_are_distributions() -> None:
    toy = make_toy(0)
    assert toy.pi.sum() == pytest.approx(1, abs=1e-12)
    assert toy.q.sum() == pytest.approx(1, abs=1e-12)


def test_estimate_is_unbiased_over_every_pair_of_samples() -> None:
    toy = make_toy(1)
    probability, log_ratio = toy.q, toy.log_ratio
    mean = 0.0
    for pair in itertools.product(range(toy.q.size), repeat=2):
        rows = np.array(pair)
        value = toy.estimate(rows, log_ratio, np.zeros(2, int)).elbo.value
        assert value is not None
        mean += probability[rows].prod() * value
    assert mean == pytest.approx(toy.exact(toy.q), abs=1e-12)


def test_terms_agree_with_enumeration_within_their_standard_errors() -> None:
    toy, rng = make_toy(2), np.random.default_rng(0)
    questions, k = 1500, 4
    rows = rng.choice(toy.q.size, questions * k, p=toy.q / toy.q.sum())
    found = toy.estimate(rows, toy.log_ratio, np.repeat(np.arange(questions), k))
    exact = {
        "elbo": toy.exact(toy.q),
        "log_s_cue": toy.q @ np.log(toy.s),
        "length_cost": PRICE * toy.q @ toy.c,
        "kl": toy.q @ np.log(toy.q / toy.pi),
    }
    for name, value in exact.items():
        term = getattr(found, name)
        assert abs(term.value - value) < 4 * term.standard_error, name
        # Paths are independent here, so the clustered error is that of questions * k draws.
        assert term.standard_error < 0.1
    assert found.elbo.value == pytest.approx(
        found.log_s_cue.value - found.length_cost.value - found.kl.value,  # type: ignore[operator]
        abs=1e-12,
    )


def test_tight_at_the_optimal_posterior_and_below_elsewhere() -> None:
    toy, rng = make_toy(3), np.random.default_rng(3)
    weight = toy.pi * toy.s * np.exp(-PRICE * toy.c)
    q_star = weight / weight.sum()
    found = toy.estimate(np.arange(5), np.log(q_star / toy.pi), np.array([0, 0, 0, 1, 1]))
    assert found.elbo.value == pytest.approx(toy.bound(), abs=1e-12)
    assert found.elbo.standard_error == pytest.approx(0, abs=1e-12)
    assert found.ess_share.value == pytest.approx(1, abs=1e-12)
    assert found.log_weight_variance.value == pytest.approx(0, abs=1e-12)
    assert toy.exact(toy.q) < toy.bound()
    assert all(toy.exact(rng.dirichlet(np.ones(toy.pi.size))) < toy.bound() for _ in range(200))


def test_bayes_identity_and_what_it_does_not_promise() -> None:
    toy = make_toy(4)
    mean = toy.pi @ toy.s
    posterior = toy.pi * toy.s / mean
    assert toy.exact(posterior, price=0) == pytest.approx(np.log(mean), abs=1e-12)  # it is q* of the free-length ELBO
    variance = toy.pi @ (toy.s - mean) ** 2
    assert posterior @ toy.s == pytest.approx(mean + variance / mean, abs=1e-12)

    config = UtilityConfig(length_price=PRICE)
    u = utility(config, toy.s, toy.c * REFERENCE, REFERENCE)
    u_mean = toy.pi @ u
    covariance = toy.pi @ ((u - u_mean) * (toy.s - mean))
    assert posterior @ u - u_mean == pytest.approx(covariance / mean, abs=1e-12)
    q_star = toy.pi * u / u_mean
    assert q_star @ u == pytest.approx(u_mean + toy.pi @ (u - u_mean) ** 2 / u_mean, abs=1e-12)

    # Where right paths are long, the exact posterior loses utility: Cov(u, s) < 0.
    pi, s, length = np.array([0.5, 0.5]), np.array([0.9, 0.6]), np.array([30.0, 1.0])
    u = utility(config, s, length, REFERENCE)
    assert (pi * s / (pi @ s)) @ u < pi @ u


def test_effective_sample_size() -> None:
    index = np.array([0, 0, 1, 1, 2, 2, 3])
    log_w = np.array([800.0, 800.0, 0.0, -np.inf, -np.inf, -np.inf, -900.0])
    np.testing.assert_allclose(elbo.ess_share(log_w, index), [1, 0.5, 0, 1], atol=1e-15)
    weights = np.random.default_rng(0).uniform(0.1, 1, 6)
    expected = weights.sum() ** 2 / (weights**2).sum() / 6
    assert elbo.ess_share(np.log(weights) - 1000, np.zeros(6, int))[0] == pytest.approx(expected, abs=1e-10)


def test_impossible_answers_sink_the_estimate_but_not_the_diagnostics() -> None:
    found = elbo.estimate([0, 0, 1, 1], [-np.inf, -np.inf, -1.0, -2.0], [1.0] * 4, [0.5] * 4, 0.1)
    assert found.elbo.value == -np.inf
    assert found.elbo.standard_error is None
    assert found.kl.value == 0.5
    assert found.ess_share.value == pytest.approx((0 + 1.0 * (1 + np.e) ** 2 / (1 + np.e**2) / 2) / 2)
    assert found.log_weight_variance.value == pytest.approx(0.5)  # of the one question with finite weights


def test_standard_error_is_clustered_and_questions_weigh_the_same() -> None:
    log_s = np.array([-1.0, -1.0, -1.0, -3.0])
    found = elbo.estimate([7, 7, 7, 9], log_s, np.zeros(4), np.zeros(4), 0.0)
    assert found.log_s_cue.value == pytest.approx(-2)  # of the means -1 and -3, not of the four paths
    assert found.log_s_cue.standard_error == pytest.approx(np.sqrt(2) / np.sqrt(2))
    copies = elbo.estimate(np.tile([7, 7, 7, 9], 5), np.tile(log_s, 5), np.zeros(20), np.zeros(20), 0.0)
    assert copies.log_s_cue == found.log_s_cue  # more copies of the same paths are no more evidence


def test_unmeasured_paths_are_left_out_and_counted() -> None:
    found = elbo.estimate([0, 0, 1], [-1.0, np.nan, np.nan], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], 0.5)
    assert (found.questions, found.paths, found.left_out) == (1, 1, 2)
    assert found.elbo == elbo.Term(-1.5, None)
    empty = elbo.estimate([], [], [], [], 0.5)
    assert empty.elbo == elbo.Term(None, None)
    assert json.loads(json.dumps(json_of(empty)))["elbo"] == {"value": None, "standard_error": None}

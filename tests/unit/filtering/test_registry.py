"""A check costs its own file, its options and a line: all else reads the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support import rollouts
from tests.support.measured_rows import Row, posterior, prior, select_from, selection, write_pair
from tests.support.recording import Recording
from vpgea.config.fields import Section, identity
from vpgea.config.filtering import FilterConfig
from vpgea.config.schema import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.engines.transformers import TransformersEngine
from vpgea.estimate.estimator import Estimator
from vpgea.estimate.hardware import NAMED
from vpgea.filtering.checks.base import Check, Judge
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.cost import Cost, Paths, RolloutLengths
from vpgea.filtering.crossview import CrossView
from vpgea.filtering.measurements import MEASUREMENTS, measurement_schema
from vpgea.filtering.prior_view import PriorView
from vpgea.filtering.report import OTHER_REASONS
from vpgea.filtering.samples import Chunk, JudgedSample
from vpgea.grading.samples import grader_pool
from vpgea.inspection.folders import open_source
from vpgea.inspection.samples import parse_key, sample_detail
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.shape import published_shape
from vpgea.prompts.views import load_views
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest

DOCS = Path(__file__).parents[3] / "docs" / "filter.md"


# --- a check of a stranger's -----------------------------------------------------------------------------------------


class BrevityConfig(Section):
    """Is there any thinking to speak of?"""

    enabled: bool = identity(True, "check it")
    fewest: int = identity(3, "tokens")


class StrangersFilter(FilterConfig):
    """The filter's options with the new check's."""

    brevity: BrevityConfig = BrevityConfig()


def _measure(chunk: Chunk, view: PriorView) -> None:
    candidates = chunk.candidates
    requests = [ScoreRequest(sample.prior_prompt + sample.z, len(sample.prior_prompt)) for sample in candidates]
    for sample, _ in zip(candidates, view.score(candidates, requests), strict=True):
        sample.found["brevity"] = float(len(sample.z))


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    options = config.filter
    assert isinstance(options, StrangersFilter)
    return lambda sample: ["too-brief"] * (sample.measured["brevity"] < options.brevity.fewest)


BREVITY = Check(
    name="brevity",
    about="is there any thinking to speak of?",
    columns=(pa.field("brevity", pa.float32()),),
    measure=_measure,
    reasons={"too-brief": "fewer tokens than the limit"},
    judge=_judge,
    cost=lambda config, lengths: Cost(scored=(lengths.candidates.end,)),
)
WITH_BREVITY = (*CHECKS, BREVITY)


def with_brevity(config: RunConfig, *, enabled: bool = True) -> RunConfig:
    return config.model_copy(update={"filter": StrangersFilter(brevity=BrevityConfig(enabled=enabled))})


def rows_of(*lengths: float) -> list[Row]:
    drawn = [posterior("a", index, brevity=length) for index, length in enumerate(lengths)]
    return [prior("a", 0, brevity=None), *drawn]


def test_its_columns_follow_the_others_in_the_schema() -> None:
    assert measurement_schema(WITH_BREVITY).names == [*MEASUREMENTS.names, "brevity"]


def test_it_is_measured_with_the_others(tiny_rollout: Path, run_config: Callable[..., RunConfig]) -> None:
    config = with_brevity(run_config(grading__workers=1))
    local = LocalModel.resolve(config.model)
    engine = Recording(TransformersEngine(load_model(local), batch_size=16))
    samples = rollouts.as_samples(rollouts.rows_of(tiny_rollout))
    with grader_pool(config) as graders:
        view = PriorView(
            config,
            load_views(local, config.views, config.grading.grader),
            engine,
            graders,
            StopRequest(),
            NullProgress(),
            context=local.context_length,
        )
        found = CrossView(view, [BREVITY]).measure(samples).to_pylist()
    candidates = [row["view"] == "posterior" and row["status"] == "correct" for row in found]
    assert any(candidates)
    for sample, row, is_candidate in zip(samples, found, candidates, strict=True):
        expected = float(sample.thinking_tokens) if is_candidate and not sample.cut_off else None
        assert row["brevity"] == expected
        assert row["check_tokens"] == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_its_reasons_reject_and_are_counted(tmp_path: Path, enabled: bool) -> None:
    folders = write_pair(tmp_path, rows_of(2.0, 9.0), checks=WITH_BREVITY)
    summary = select_from(with_brevity(RunConfig(), enabled=enabled), *folders, WITH_BREVITY)
    found = selection(folders[1])
    assert found["a", "posterior", 0]["reasons"] == ["too-brief"] * enabled
    assert found["a", "posterior", 1]["reasons"] == []
    counts = summary.counts
    assert counts["posterior_rejected_too-brief"] == counts["posterior_pseudo_efficient"] == enabled
    assert counts["posterior_accepted"] == 2 - enabled
    assert summary.checks["brevity"] == 5.5


def test_what_it_measured_is_shown(tmp_path: Path) -> None:
    _, measured = write_pair(tmp_path, rows_of(2.0, 9.0), checks=WITH_BREVITY)
    select_from(with_brevity(RunConfig()), tmp_path / "rollout", measured, WITH_BREVITY)
    assert sample_detail(open_source(measured), parse_key("a/posterior/1")).checks["brevity"] == 9.0


def test_its_cost_is_estimated() -> None:
    lengths = np.array([10, 10])
    paths, noted = Paths(lengths, lengths * 5), Paths(lengths * 3, lengths * 5)
    known = RolloutLengths(
        prompts=lengths[:1],
        prior=paths,
        posterior=paths,
        candidates=paths,
        noted_prior=noted,
        noted_posterior=noted,
        noted_candidates=noted,
        completion_tokens=200,
    )
    shape = published_shape(
        {
            "model_type": "qwen2",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1000,
        },
        dtype_bytes=4,
    )

    def tokens(config: RunConfig) -> int:
        return Estimator(config, shape, NAMED["1x A100 80GB"], WITH_BREVITY).filter(known).processed_tokens

    assert tokens(with_brevity(RunConfig())) - tokens(with_brevity(RunConfig(), enabled=False)) == paths.end.sum()


# --- the checks that there are ---------------------------------------------------------------------------------------


def test_every_check_has_its_options_and_names_nothing_twice() -> None:
    columns = [column.name for check in CHECKS for column in check.columns]
    reasons = [reason for check in CHECKS for reason in check.reasons]
    assert len(set(columns)) == len(columns)
    assert len({*reasons, *OTHER_REASONS}) == len(reasons) + len(OTHER_REASONS)
    for check in CHECKS:
        assert check.name in FilterConfig.model_fields
        assert check.is_enabled(FilterConfig()) == (not check.about.startswith("diagnostic"))


def test_the_manual_lists_every_reason_in_the_order_of_blame() -> None:
    reasons = {**{reason: meaning for check in CHECKS for reason, meaning in check.reasons.items()}, **OTHER_REASONS}
    lines = [f"| `{reason}` | {meaning} |" for reason, meaning in reasons.items()]
    told = DOCS.read_text(encoding="utf-8").splitlines()
    assert [line for line in told if line in lines] == lines


def test_the_manual_names_the_options_of_every_check() -> None:
    told = DOCS.read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"`{check.name}." in told or f"`filter.{check.name}`" in told

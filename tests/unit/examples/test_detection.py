"""Which check finds which path: rounds written by hand, whose every figure can be counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.detection.__main__ import main
from examples.detection.figures import figures, pooled, verdict
from examples.detection.rounds import Round, Verdict, read_round
from examples.detection.thresholds import DIALS, sweep
from examples.detection.truth import Asked, Kind, truth_of
from tests.support.measured_rows import Row, posterior, prior, select_from, write_pair
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.metrics.estimates import Estimate
from vpgea_cli.main import told

ASKED = "start with 34 . add 7 . subtract 12 . add 25 . what is the result ?"
SOUND = "34 add 7 gives 41 . 41 subtract 12 gives 29 . 29 add 25 gives 54 ."
SLIP = "34 add 7 gives 43 . 43 subtract 12 gives 29 . 29 add 25 gives 54 ."
OTHER = "34 add 7 gives 43 . 43 subtract 12 gives 31 . 31 add 25 gives 56 ."
COPIED = "34 add 7 gives 41 . so 54 ."
LEAK = f"the note says 54 . {SOUND}"
EQUATION = "x times 3 add 5 is 26 . what is x ?"  # of one digit: no derivation
SOLVED = "26 subtract 5 gives 21 . 21 divide 3 gives 7 ."


def chain(index: int, thinking: str, /, question: str = "q0", **values: Any) -> Row:
    text = f" {thinking} </think> \\boxed{{ 54 }} <|end|>"
    return posterior(question, index, question=ASKED, answer="54", completion=text, **values)


def equation(index: int, thinking: str, /, **values: Any) -> Row:
    asked = {"question": EQUATION, "answer": "7", "completion": f" {thinking} </think> \\boxed{{ 7 }} <|end|>"}
    return posterior("e0", index, **asked, **{"derivation": None, **values})


def before(thinking: str, index: int = 0, **values: Any) -> Row:
    """Without the note."""
    return prior("q0", index, question=ASKED, answer="54", completion=f" {thinking} </think> \\boxed{{ 54 }}", **values)


def written(folder: Path, rows: Sequence[Row]) -> Path:
    select_from(RunConfig(), *write_pair(folder, rows))
    return folder


ROWS = [
    before(SOUND),
    before(SLIP, 1),
    before(OTHER, 2, status="wrong"),
    chain(0, SOUND),
    chain(1, SOUND, derivation=0.25),  # lost
    chain(2, COPIED, derivation=0.0, note_dependence=7.0),
    chain(3, COPIED, note_dependence=2.0),  # by note dependence alone
    chain(4, LEAK, leak="note"),
    chain(5, SLIP),
    chain(6, OTHER, answerability=0.0),
    chain(7, OTHER, status="wrong"),
    equation(0, SOLVED),
    equation(1, "so 7 .", note_dependence=0.5),  # missed
    equation(2, SOLVED, note_dependence=None),  # no content check can judge it
]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Round:
    return read_round(written(tmp_path_factory.mktemp("loop") / "round-000", ROWS))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested where they are made."""
    monkeypatch.setattr("examples.detection.figures.DRAWS", 100)


def values(*estimates: Estimate) -> list[float | None]:
    return [estimate.value for estimate in estimates]


# --- the ground truth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "kind"),
    [
        (SOUND, Kind.SOUND),
        (SOUND.replace("gives 41", "gives 42 . check 34 add 7 gives 41"), Kind.SOUND),
        (SLIP, Kind.LUCKY_SLIP),
        (f"{SLIP} check 34 add 7 gives 43 .", Kind.LUCKY_SLIP),
        (OTHER, Kind.UNREACHED),
        ("34 add 7 gives 41 .", Kind.UNREACHED),
        (f"well . {SOUND}", Kind.UNREACHED),
        (COPIED, Kind.SILENT_LEAK),
        (LEAK, Kind.LEAK),
    ],
)
def test_kinds_of_paths_of_words(thinking: str, kind: Kind) -> None:
    asked = Asked("q0", ASKED, "54", ())
    truth = truth_of(Path(), [asked], None)
    assert truth.family(asked) == "arithmetic"
    assert truth.kind(asked, f"{thinking} </think> \\boxed{{ 54 }}") == kind


def test_kinds_of_paths_of_equations(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "train-0001-level2", "steps": ["12 + 30 = 42", "42 * 2 = 84"]}\n', encoding="utf-8")
    asked, right = Asked("train-0001-level2", "?", "84", ()), "12 + 30 = 42. 42 * 2 = 84."
    truth = truth_of(Path(), [asked], file)
    assert truth.family(asked) == "level2"
    for thinking, kind in {
        right: Kind.SOUND,
        f"12 + 30 = 43. No: {right}": Kind.MENDED,
        f"The note says 84. {right}": Kind.LEAK,
        "So it is 84.": Kind.SILENT_LEAK,
        "12 + 30 = 42.": Kind.SILENT_LEAK,
    }.items():
        for answer in ("\\boxed{84}", "\\boxed{\\text{84 cards}}", "The answer is 84."):  # all right by the grader
            assert truth.kind(asked, f"{thinking}</think> {answer}") == kind
    with pytest.raises(UsageError, match="is of other questions"):
        truth_of(Path(), [Asked("b", "?", "84", ())], file)


def test_a_question_with_another_answer_than_its_steps_have_is_refused(tmp_path: Path) -> None:
    """Else paths that are right by the one would be judged by the other."""
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "a-level1", "steps": ["12 + 30 = 42"]}\n', encoding="utf-8")
    for asked, questions in ((Asked("q0", ASKED, "55", ()), None), (Asked("a-level1", "?", "41", ()), file)):
        with pytest.raises(UsageError, match=f"has another answer of {asked.id} than its steps lead to"):
            truth_of(Path(), [asked], questions)


def test_pseudo_efficient_and_sound_are_what_they_are() -> None:
    assert [kind for kind in Kind if kind.is_sound] == [Kind.SOUND, Kind.MENDED]
    assert [kind for kind in Kind if kind.is_pseudo_efficient] == [Kind.LEAK, Kind.SILENT_LEAK, Kind.UNREACHED]


# --- a round --------------------------------------------------------------------------------------------------------


def test_a_round_is_read_with_what_each_check_says_by_itself(one: Round) -> None:
    assert one.checks == ("leaks", "note_dependence", "derivation", "answerability", "plausibility")
    assert [sample.kind for sample in one.prior] == [Kind.SOUND, Kind.LUCKY_SLIP]
    assert len(one.posterior) == 10
    copied, undecided = one.posterior[2], one.posterior[-1]
    assert copied.verdicts == {
        "leaks": Verdict.PASSED,
        "note_dependence": Verdict.CAUGHT,
        "derivation": Verdict.CAUGHT,
        "answerability": Verdict.PASSED,
        "plausibility": Verdict.NOT_JUDGED,  # there are too few paths without the note
    }
    assert copied.rejected_without == {*one.checks}
    assert one.posterior[3].rejected_without == {*one.checks} - {"note_dependence"}
    assert undecided.verdicts["derivation"] == undecided.verdicts["note_dependence"] == Verdict.NOT_JUDGED
    assert undecided.reasons == ("undecided",)
    assert [path.is_distinct for path in one.posterior] == [True] * 7 + [False] * 3


def test_figures_of_a_round(one: Round) -> None:
    found = figures(one)
    whole = found.whole.filter
    assert (found.right, found.whole.pseudo_efficient, found.whole.sound) == (10, 5, 4)
    assert values(whole.recall, whole.loss, whole.precision, whole.lucky) == [4 / 5, 2 / 4, 4 / 6, 0]
    assert values(found.prior_unsound, found.undecided) == [1 / 2, 1 / 10]
    own = found.checks["note_dependence"]
    assert values(own.alone.recall, own.alone.loss, own.alone.precision, own.not_judged) == [2 / 5, 0, 1, 1 / 10]
    assert (own.only, found.checks["leaks"].only, found.checks["derivation"].only) == (1, 1, 0)
    # without it nothing judges what an equation says: those paths stay undecided
    assert values(own.without.recall, own.without.loss) == [4 / 5, 3 / 4]
    assert values(found.checks["derivation"].without.recall, found.checks["derivation"].without.loss) == [4 / 5, 1 / 4]
    assert found.checks["derivation"].not_judged.value == 3 / 10
    assert {name: kind.count for name, kind in found.kinds.items()} == {
        **{"sound": 4, "lucky slip": 1, "leak": 1, "silent leak": 3, "unreached": 1},
    }
    assert found.kinds["unreached"].caught["answerability"].value == 1
    assert found.families["arithmetic"].filter.recall.value == 1
    assert found.families["equation"].filter.recall.value == 0
    assert found.answers["told apart"].sound == 2
    assert found.families["arithmetic"].lost["derivation"].value == 1 / 2
    assert found.whole.goal == "miss?"  # of two questions there is no interval


def test_a_check_costs_what_it_asks_for_the_paths_that_it_measured(one: Round) -> None:
    """Prompts have 2 tokens in either view, thinking 4."""
    options, questions = RunConfig().filter, 2
    assert one.costs["leaks"].as_dict() == {"sampled_at_most": 0, "scored": 0}
    assert one.costs["derivation"].sampled_at_most == 7 * options.derivation.samples * (options.derivation.window + 16)
    answers = 10 + questions  # behind each path, and behind each question without thinking
    assert (
        one.costs["answerability"].sampled_at_most
        == answers * options.answerability.samples * options.answerability.max_new_tokens
    )
    assert one.costs["note_dependence"].scored == 9 * options.note_dependence.notes * (2 + 4)
    assert one.costs["note_dependence"].sampled_at_most == one.costs["derivation"].scored == 0


def test_of_a_filter_that_learns_paths_in_part_the_verdicts_are_those_on_whole_paths(
    one: Round, tmp_path: Path
) -> None:
    beginning: Row = {"first_dependent_token": 2, "derivation_token": 2}
    beginning |= {"beginning_answerability": 1.0, "beginning_valid": 8}
    rows = [row | beginning if (row["note_dependence"] or 0) >= 1 else row for row in ROWS]
    config = resolve(options={"filter.note_dependence.dependent": "mask"}).config
    folder = tmp_path / "round-000"
    rollout, measured = write_pair(folder, rows, config=config)
    assert select_from(config, rollout, measured).counts["posterior_in_part"] == 2
    assert read_round(folder).posterior == one.posterior


def test_a_filter_that_decided_otherwise_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "round-000"
    rollout, measured = write_pair(folder, ROWS)
    select_from(RunConfig.model_validate({"filter": {"derivation": {"threshold": 0.1}}}), rollout, measured)
    with pytest.raises(UsageError, match="decided otherwise than its measurements say") as refused:
        read_round(folder)
    assert refused.value.why == "path 1 of q0 has [], the checks give ['derivation']"


# --- thresholds -----------------------------------------------------------------------------------------------------


def test_a_sweep_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    for name, sign in {"note_dependence": 1, "answerability": -1}.items():
        dial = DIALS[name]
        copied, sound = np.round(rng.normal(sign, 1, 60), 1), np.round(rng.normal(0, 1, 80), 1)
        found = sweep(dial, 0.5, copied, sound, 0.1)
        assert found is not None
        pairs = [(sign * (a - b) > 0) + (a == b) / 2 for a in copied for b in sound]
        assert found.area == pytest.approx(np.mean(pairs))
        for point in (found.setting, *found.points):
            taken = [sign * (kind - point.threshold) >= (0 if sign > 0 else 1e-6) for kind in (copied, sound)]
            assert (point.recall, point.loss) == tuple(map(np.mean, taken))
        best = found.within_loss
        assert best is not None
        assert best.loss <= 0.1
        assert best.recall >= max((point.recall for point in found.points if point.loss <= 0.1), default=0)


def test_thresholds_are_those_of_the_run_over_what_was_measured(one: Round) -> None:
    thresholds = figures(one).whole.thresholds
    assert thresholds.keys() == {"note_dependence", "derivation", "answerability"}  # plausibility measured nothing
    found = thresholds["derivation"]
    assert (found.setting.threshold, found.setting.recall, found.setting.loss) == (0.5, 1 / 4, 1 / 2)
    assert (found.pseudo_efficient, found.sound) == (4, 2)
    assert thresholds["note_dependence"].sound == 3


# --- the goal, rounds, the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recall", "loss", "said"),
    [
        ((0.99, 0.98, 1.0), (0.001, 0.0, 0.01), "pass"),
        ((0.99, 0.96, 1.0), (0.001, 0.0, 0.01), "pass?"),
        ((0.99, 0.98, 1.0), (0.03, 0.021, 0.05), "miss"),
        ((0.96, 0.9, 0.98), (0.001, 0.0, 0.01), "miss?"),
        ((0.9, 0.85, 0.95), (0.001, 0.0, 0.01), "miss"),
        ((1.0, None, None), (0.0, None, None), "pass?"),
        ((None, None, None), (0.0, 0.0, 0.01), "-"),
    ],
)
def test_the_goal(recall: tuple[float | None, ...], loss: tuple[float | None, ...], said: str) -> None:
    def estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
        return Estimate(value=value, low=low, high=high, n=9)

    assert verdict(estimate(*recall), estimate(*loss)) == said


def test_rounds_are_pooled_and_a_question_stays_one(tmp_path: Path) -> None:
    rows = [chain(index, thinking, f"q{n}") for n in range(5) for index, thinking in enumerate((SOUND, COPIED))]
    loop = [read_round(written(tmp_path / f"round-00{number}", rows)) for number in range(2)]
    one, both = (figures(each) for each in (loop[0], pooled(loop)))
    assert (one.right, both.right, both.round) == (10, 20, "all")
    assert both.checks["derivation"].cost.sampled_at_most == 2 * one.checks["derivation"].cost.sampled_at_most
    tokens = {name: count for name, count in both.tokens.items() if count}
    assert tokens == {"rollout_tokens": 120}
    # as much is known of five questions, whatever the number of rounds
    assert both.whole.filter.loss.high == pytest.approx(one.whole.filter.loss.high, abs=0.05)
    with pytest.raises(UsageError, match="cannot be taken together"):
        pooled([loop[0], Round(**{**vars(loop[1]), "settings": {}})])


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        written(tmp_path / f"round-00{number}", ROWS)
    main([str(tmp_path), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["goal"] == {"least_recall": 0.97, "most_loss": 0.02}
    assert [one["round"] for one in (*found["rounds"], found["all"])] == ["round-000", "round-001", "all"]
    assert found["all"]["whole"]["filter"]["recall"]["value"] == 0.8
    main([str(tmp_path)])
    text = capsys.readouterr().out
    assert "| round-001 | arithmetic | 4 | 100.0 % | 2 | 50.0 % | miss? |" in text
    assert "| all | all | 10 | 80.0 % | 8 | 50.0 % | miss? |" in text
    assert "| note_dependence | 40.0 % | 0.0 % | 100.0 % | 0.0 % | 10.0 % | 2 | 80.0 % | 75.0 % |" in text
    for table in text.split("\n\n"):
        widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    main([str(tmp_path / "round-001")])
    assert "| round-000 |" not in capsys.readouterr().out


def test_a_run_of_no_testbed_is_no_run_of_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "round-000", [prior("a", 0), posterior("a", 0, status="wrong")])
    assert told(lambda: main([str(folder)])) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    what, why, mend = captured.err.splitlines()
    assert what == f"error: {folder / 'rollout'} is of no testbed that is known by its words"
    assert "'What is a?'" in why
    assert "--questions" in mend

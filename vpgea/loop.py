"""Rounds of rollout, filter, distill and a quick evaluation, as a state machine that lives in the run folder.

What is done is read from the phases' own markers: a step that is complete is skipped, one that is not continues.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpgea.config import RunConfig, identity_of
from vpgea.distill import distill, trained_model, warnings_of
from vpgea.engines.select import LOGS, EngineLease
from vpgea.errors import QualityGateError, UsageError
from vpgea.evaluate import evaluate
from vpgea.filter import filter_rollout
from vpgea.modeling.load import load_views, model_fingerprint
from vpgea.progress import NullReporter, Reporter
from vpgea.questions import Question, fingerprint_questions, load_questions
from vpgea.resolve import dump_yaml, resolve
from vpgea.rollout import RolloutPlan, rollout
from vpgea.runs import Manifest, PhaseFolder, flat_config
from vpgea.shards import read_json, write_bytes, write_json
from vpgea.stopping import StopRequest

OnRound = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Loop:
    """A run folder with everything that its rounds share."""

    config: RunConfig
    run_dir: Path
    questions: list[Question]
    held_out: list[Question]
    reporter: Reporter
    stop: StopRequest

    @classmethod
    def open(
        cls,
        config: RunConfig,
        run_dir: Path,
        *,
        resume: bool = True,
        overwrite: bool = False,
        offline: bool = False,
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
    ) -> Loop:
        """Read both question sets and open the run folder. Raises UsageError when it holds another run."""
        config = _with_absolute_paths(config)
        _require_teacher(config)
        questions = load_questions(config.data, offline=offline).questions
        held_out = load_questions(held_out_data(config), offline=offline).questions
        _require_disjoint(questions, held_out)
        manifest = Manifest(
            phase="loop",
            identity=identity_of(
                config, "model", "data", "views", "rollout", "grading", "filter", "distill", "eval", "loop"
            ),
            inputs={
                "model": model_fingerprint(config.model),
                "questions": fingerprint_questions(questions),
                "held-out questions": fingerprint_questions(held_out),
                "template": load_views(config).fingerprint,
            },
            config=flat_config(config),
        )
        PhaseFolder.open(run_dir, manifest, resume=resume, overwrite=overwrite)
        _write_if_new(run_dir / "config.yaml", dump_yaml(config))
        return cls(config, run_dir, questions, held_out, reporter or NullReporter(), stop or StopRequest())

    @property
    def finished(self) -> int:
        """Rounds that are complete, without a gap from the first on."""
        return next(index for index in itertools.count() if not self._marker(index).is_file())

    def run(self, on_round: OnRound = lambda line: None) -> list[dict[str, Any]]:
        """All rounds that are missing; returns one line per finished round, the base model's first.

        Raises what the phases raise; everything finished stays.
        """
        with EngineLease(
            self.run_dir / LOGS, self.stop, publishes=self.run_dir, replaceable=self._replaceable
        ) as lease:
            lines = [self._base(lease), *(read_json(self._marker(index)) for index in range(self.finished))]
            for line in lines:
                on_round(line)
            self._settle(lines)
            for index in range(len(lines) - 1, self.config.loop.rounds):
                if reason := ended_early(self.config, lines):
                    self.reporter.warn(f"the loop ends after round {index - 1}: {reason}")
                    break
                lines.append(self._round(index, lines, lease))
                on_round(lines[-1])
                self._settle(lines)
        return lines

    def _replaceable(self) -> set[str]:
        """Fingerprints of the weights that a server behind a URL may have when this run comes to it: only its own."""
        base = {model_fingerprint(self.config.model)}
        if self.config.distill.train == "lora":
            return base
        summaries = self.run_dir.glob("round-*/distill/summary.json")
        return base | {read_json(path)["model_fingerprint"] for path in summaries}

    def _settle(self, lines: Sequence[dict[str, Any]]) -> None:
        """What follows from the finished rounds: the run's metrics, and which weights are kept."""
        _write_if_new(self.run_dir / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self._prune(len(lines) - 2)

    def _marker(self, index: int) -> Path:
        return round_dir(self.run_dir, index) / "round.json"

    def _base(self, lease: EngineLease) -> dict[str, Any]:
        """The base model's quick evaluation: what every round is compared with."""
        marker = self.run_dir / "base" / "round.json"
        if marker.is_file():
            return read_json(marker)
        began = time.perf_counter()
        results = self._evaluate(self.config, self.run_dir / "base" / "eval", "base", lease)
        line = {"round": None, **_figures(results), "seconds": round(time.perf_counter() - began, 1)}
        write_json(marker, line)
        return line

    def _round(self, index: int, lines: Sequence[dict[str, Any]], lease: EngineLease) -> dict[str, Any]:
        """One round, its figures written last. Raises QualityGateError with the way out of a loop."""
        try:
            line = self._phases(index, lines, lease)
        except QualityGateError as error:
            folder = round_dir(self.run_dir, index)
            raise QualityGateError(
                f"round {index}: {error.what}",
                why=error.why,
                mend=f"{error.mend}. Settings that change results need another --output-dir; to make only one step of "
                f"this round again, delete its folder in {folder}",
            ) from error
        write_json(self._marker(index), line)
        return line

    def _phases(self, index: int, lines: Sequence[dict[str, Any]], lease: EngineLease) -> dict[str, Any]:
        """Draw, look from the other view, train, measure.

        The evaluation and the next round's rollout have the same weights, and so one engine; none is open while
        training has the machine.
        """
        began = time.perf_counter()
        folder = round_dir(self.run_dir, index)
        config = self._round_config(index, lines)
        questions = round_questions(self.questions, index, self.config.loop.questions_per_round, config.rollout.seed)
        label = f"round {index}"
        plan = RolloutPlan.make(config, questions, round_index=index)
        with self.reporter.progress(len(questions), f"{label} rollout: questions") as progress:
            drawn = rollout(plan, folder / "rollout", lease=lease, stop=self.stop, progress=progress)
        with self.reporter.progress(len(plan.chunks), f"{label} filter: chunks") as progress:
            selection = filter_rollout(
                config,
                folder / "rollout",
                folder / "filter",
                lease=lease,
                stop=self.stop,
                progress=progress,
            )
        lease.release()
        assert selection is not None, "a loop's phases have one part"
        steps = -(-drawn["questions"] // config.distill.questions_per_step) * config.distill.epochs
        with self.reporter.progress(steps, f"{label} distill: steps") as progress:
            training = distill(config, folder / "filter", folder / "distill", stop=self.stop, progress=progress)
        for warning in warnings_of(training):
            self.reporter.warn(f"{label} distill: {warning}")
        tuned = config.model_copy(update={"model": trained_model(config, folder / "distill")})
        results = self._evaluate(tuned, folder / "eval", label, lease)
        return {
            "round": index,
            **_figures(results),
            **_selection_figures(selection),
            "length_price": config.filter.utility.length_price,
            "loss_reference_kl": _last_reference_kl(folder / "distill" / "metrics.jsonl"),
            "trained_tokens": training["trained_tokens"],
            "engine_mismatch": (training["engine_mismatch"] or {}).get("largest"),
            "seconds": round(time.perf_counter() - began, 1),
        }

    def _evaluate(self, config: RunConfig, folder: Path, label: str, lease: EngineLease) -> dict[str, Any]:
        """Every evaluation is paired with the base model's, its own with itself excepted."""
        base = self.run_dir / "base" / "eval"
        config = config.model_copy(
            update={"eval": config.eval.model_copy(update={"baseline": None if folder == base else str(base)})}
        )
        with self.reporter.progress(len(self.held_out), f"{label} eval: questions") as progress:
            results = evaluate(config, self.held_out, folder, lease=lease, stop=self.stop, progress=progress)
        assert results is not None, "a loop's phases have one part"
        return results

    def _round_config(self, index: int, lines: Sequence[dict[str, Any]]) -> RunConfig:
        """The configuration of one round: the weights of the round before, and the price of length."""
        config = self.config
        model = config.model
        updates: dict[str, Any] = {}
        if index > 0:
            model = trained_model(config, round_dir(self.run_dir, index - 1) / "distill")
            references = round_dir(self.run_dir, 0) / "filter" / "reference_lengths.json"
            updates["reference_lengths"] = str(references)
        utility = config.filter.utility.model_copy(update={"length_price": length_price(config, lines)})
        distill_config = config.distill
        if distill_config.train == "full" and distill_config.reference is None:
            distill_config = distill_config.model_copy(update={"reference": config.model.path})
        return config.model_copy(
            update={
                "model": model,
                "filter": config.filter.model_copy(update={**updates, "utility": utility}),
                "distill": distill_config,
            }
        )

    def _prune(self, newest: int) -> None:
        """Drop the weights of rounds beyond keep_rounds, the best one's excepted; their data and figures stay."""
        keep = self.config.loop.keep_rounds
        if keep is None:
            return
        best = best_round(self.run_dir, self.config)
        for index in range(newest - keep + 1):
            if index != best:
                for name in ("model", "adapter"):
                    shutil.rmtree(round_dir(self.run_dir, index) / "distill" / name, ignore_errors=True)


def round_dir(run_dir: Path, index: int) -> Path:
    return run_dir / f"round-{index:03d}"


def held_out_data(config: RunConfig) -> Any:
    """The data section for the held-out questions: other file, same field names."""
    if not config.loop.eval_dataset:
        raise UsageError(
            "no held-out questions were given",
            why="loop.eval_dataset is empty, and every round is measured on questions that are not trained on",
            mend="give --eval-dataset with a question file of its own",
        )
    return config.data.model_copy(update={"dataset": config.loop.eval_dataset, "limit": config.loop.eval_limit})


def round_questions(questions: Sequence[Question], index: int, per_round: int | None, seed: int) -> list[Question]:
    """The questions of one round: consecutive slices of one seeded permutation per pass over the data."""
    if per_round is None or per_round >= len(questions):
        return list(questions)
    chosen: list[Question] = []
    for position in range(index * per_round, (index + 1) * per_round):
        epoch, offset = divmod(position, len(questions))
        order = np.random.default_rng([seed, epoch]).permutation(len(questions))
        question = questions[order[offset]]
        if question not in chosen:  # a slice over the end of a pass could hold a question twice
            chosen.append(question)
    return chosen


def length_price(config: RunConfig, lines: Sequence[dict[str, Any]]) -> float:
    """lambda, or 0 while held-out accuracy is below the base's by more than delta or the token target is reached.

    The price acts once per round and compounds over rounds, so it must be able to rest. lines: of the base and of
    every round so far.
    """
    base, last = lines[0], lines[-1]
    target = config.loop.token_target
    too_low = last["accuracy"] < base["accuracy"] - config.loop.accuracy_margin
    reached = target is not None and last["tokens"] <= target
    return 0.0 if too_low or reached else config.filter.utility.length_price


def ended_early(config: RunConfig, lines: Sequence[dict[str, Any]]) -> str | None:
    """Why no further round is to follow, if so: held-out accuracy has left its band."""
    band = config.loop.max_accuracy_drop
    base, last = lines[0]["accuracy"], lines[-1]["accuracy"]
    if band is None or last >= base - band:
        return None
    return f"held-out accuracy is {last:.3f}, the base's {base:.3f}, and loop.max_accuracy_drop {band:g}"


def best_round(run_dir: Path, config: RunConfig) -> int | None:
    """The round of highest e3 among those whose held-out accuracy is not below the base's by more than delta."""
    base = read_json(run_dir / "base" / "round.json")
    lines = [read_json(path) for path in sorted(run_dir.glob("round-*/round.json"))]
    good = [line for line in lines if line["accuracy"] >= base["accuracy"] - config.loop.accuracy_margin]
    return max(good, key=lambda line: (line["e3"], line["round"]))["round"] if good else None


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """What the run folder records must hold from any working directory."""
    return resolve(inherited=[("this run", flat_config(config))]).config


def _require_teacher(config: RunConfig) -> None:
    if config.distill.reads_teacher and not config.filter.teacher_top_k:
        raise UsageError(
            "no teacher would be stored",
            why="distill.teacher is stored, and filter.teacher_top_k is 0",
            mend="set filter.teacher_top_k=64, or use distill.teacher=round",
        )


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        write_bytes(path, text.encode())


def _require_disjoint(questions: Sequence[Question], held_out: Sequence[Question]) -> None:
    texts = {" ".join(question.text.split()) for question in questions}
    shared = [question.id for question in held_out if " ".join(question.text.split()) in texts]
    if shared:
        raise UsageError(
            f"{len(shared)} held-out questions are also trained on, e.g. {shared[0]}",
            why="rounds are measured and chosen on questions that the model has not seen",
            mend="remove them from data.dataset or from loop.eval_dataset",
        )


def _figures(results: dict[str, Any]) -> dict[str, Any]:
    found = results["metrics"]
    line: dict[str, Any] = {}
    for name, key in (
        ("accuracy", "accuracy"),
        ("tokens", "tokens"),
        ("truncated", "truncation_rate"),
        ("e3", "e3"),
        ("accuracy_gain", "accuracy_gain"),
    ):
        if key in found:
            line[name] = found[key]["value"]
            line[f"{name}_low"], line[f"{name}_high"] = found[key]["low"], found[key]["high"]
    line.setdefault("e3", 1.0)  # the base is 1 by definition
    return line


def _selection_figures(summary: dict[str, Any]) -> dict[str, Any]:
    counts, bound = summary["counts"], summary["elbo"]
    correct = (
        counts["posterior_accepted"] + counts["posterior_pseudo_efficient"] + counts["posterior_rejected_undecided"]
    )
    return {
        "accepted_share": counts["posterior_accepted"] / max(counts["posterior_sampled"], 1),
        "pseudo_efficient_share": counts["posterior_pseudo_efficient"] / max(correct, 1),
        "kl": bound["kl"]["value"] if isinstance(bound, dict) else None,
        "elbo": bound["elbo"]["value"] if isinstance(bound, dict) else None,
        "check_tokens": summary["tokens"]["check_tokens"],
    }


def _last_reference_kl(path: Path) -> float | None:
    lines = path.read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])["reference_kl"] if lines else None

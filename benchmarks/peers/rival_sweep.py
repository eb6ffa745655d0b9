"""Outside rivals beside an experiment's objectives: swept at its cost, chosen on its held-out questions, and compared.

    python -m benchmarks.peers.rival_sweep EXPERIMENT.yaml FOLDER --sweep grpo 0.1 0.3 1 --sweep sdft 1e-4 2e-4

The file and the folder are those of a finished `vpgea experiment`. A sweep names a rival and the values that are tried:

    grpo, rlsd           prices of length, at most 1, that right samples pay (`--charge correct`)
    grpo-all, rlsd-all   prices of length that all samples pay
    sdft, opsd           learning rates

Each value is trained with each seed by `trl_rivals` or `swift_rivals`, in the environment of the library (`make trl`,
`make swift`), configured as the experiment's reference, until it has sampled as many tokens as a run of the experiment
may. It is measured on the held-out questions as a round is, and the value of the highest mean ε³ there is tested. All
is kept in FOLDER/rivals/NAME and FOLDER/tests/NAME. What is finished is not made again; a training that was stopped
begins anew.

Printed, and written to FOLDER/rivals/report.md, are the experiment's tables with the rivals among their rows, the p
values adjusted for all comparisons together; what each value is worth on the held-out questions; and for each seed what
`vpgea compare` says. What earlier calls have swept there is among it: FOLDER/rivals/sweeps.json names it, and values of
one rival are chosen from together. A training whose folder was moved away is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.peers.rivals import RECORD, RIVALS, require_price
from vpgea.config.resolve import dump_yaml, flat_config, from_flat
from vpgea.config.schema import ModelConfig, with_values
from vpgea.errors import EngineError, UsageError, VpgeaError, did_you_mean
from vpgea.experiment.findings import REPORT, RESULTS
from vpgea.experiment.grid import Experiment, Run, read_experiment
from vpgea.experiment.prices import PriceSweep, chosen_of, sweep_of
from vpgea.experiment.results import SettingResult, Tested, corrected, objective_result
from vpgea.experiment.rounds import Chosen, rounds_of
from vpgea.experiment.runs import Workshop
from vpgea.experiment.text import PRICES, forgetting_of, price_rows, tables_of
from vpgea.phases.compare import compare
from vpgea.phases.evaluate import evaluate, sample_table
from vpgea.phases.schedule import held_out_data
from vpgea.questions.clusters import Numbering
from vpgea.questions.load import load_questions
from vpgea.report.comparison_text import markdown
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import MODEL, Step
from vpgea.runs.parts import Part
from vpgea.runs.progress import NullReporter
from vpgea.runs.records import Measured
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_bytes, write_if_new, write_json
from vpgea.storage.records import json_of, read_entry

ROOT = Path(__file__).parents[2]
FOLDER, DEV = "rivals", "dev"
SWEEPS = "sweeps.json"  # what the report has
TESTBED = "loop.yaml"  # as the scripts look for it in a folder

Rows = list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class RivalRun(Run):
    """One training of a rival. price: the value that is swept, be it a price or not."""

    rival: str
    price: float

    @property
    def title(self) -> str:
        """Library and rival."""
        return f"{RIVALS[self.rival].library}-{self.rival}"

    @property
    def name(self) -> str:
        """Of its folder."""
        swept = RIVALS[self.rival].swept.rpartition(".")[2].replace("_", "-")
        setting = [self.setting] if self.setting else []
        return "_".join([*setting, self.title, f"{swept}-{self.price:g}", f"seed-{self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A training that the report has, under each setting. value: as it was swept."""

    rival: str
    value: float
    seed: int

    def __post_init__(self) -> None:
        if self.rival not in RIVALS:
            raise ValueError(f"there is no rival {self.rival}")


class Sweep:
    """The rivals beside a finished experiment."""

    def __init__(self, file: Path, folder: Path) -> None:
        """Read what the experiment has found.

        Raises:
            UsageError: It is not finished, or not of this file.
        """
        experiment, folder = read_experiment(file), folder.absolute()
        if not (folder / RESULTS).is_file():
            raise _not_of(experiment, folder, f"it has no {RESULTS}")
        if read_entry(folder / RESULTS, "reference", str) != experiment.reference:
            raise _not_of(experiment, folder, "its reference is another one")
        self.experiment = experiment
        self.shop = Workshop(experiment, folder, offline=True, reporter=NullReporter(), stop=StopRequest())
        self.found = read_entry(folder / RESULTS, "settings", list[SettingResult])
        self.references = {(run.setting, run.seed): run for run in self._references()}

    def _references(self) -> Iterator[Run]:
        """The tested runs of the reference."""
        runs = {(run.setting, run.objective, run.price, run.seed): run for run in self.experiment.runs}
        for setting in self.found:
            if setting.test not in self.experiment.tests:
                raise _not_of(self.experiment, self.shop.folder, f"it has the test {setting.test or 'without a name'}")
            for result in setting.objectives:
                if result.objective == self.experiment.reference:
                    for seed in result.seeds:
                        key = (setting.name, result.objective, result.price, seed)
                        if key not in runs:
                            raise _not_of(self.experiment, self.shop.folder, f"it has another run with seed {seed}")
                        yield runs[key]

    def runs(self, rival: str, values: Sequence[float], seeds: Sequence[int] | None) -> list[RivalRun]:
        """A training for each setting, value and seed; seeds: None for those of the experiment.

        Raises:
            UsageError: A value is none, a seed is not the experiment's, or that has no bound on what is sampled.
        """
        for value in values:
            require_price(RIVALS[rival].charge, value)
        known = list(dict.fromkeys(seed for _, seed in self.references))
        if unknown := sorted(set(seeds or known) - set(known)):
            why = f"its seeds are {', '.join(map(str, known))}"
            raise UsageError(f"the experiment has no seed {unknown[0]}", why=why, mend="give some of them")
        objective = f"{RIVALS[rival].library}-{rival}" + ("" if RIVALS[rival].charge else " (λ: learning rate)")
        settings = dict.fromkeys(setting for setting, _ in self.references)
        keys = [(setting, value, seed) for setting in settings for value in values for seed in seeds or known]
        runs = []
        for setting, value, seed in keys:
            own = {"objective": None, RIVALS[rival].swept: value}
            config = with_values(self.references[setting, seed].config, own)
            config = from_flat(flat_config(config))  # which looks at the value, and makes paths absolute
            run = RivalRun(setting=setting, objective=objective, rival=rival, price=value, seed=seed, config=config)
            runs.append(run)
        if any(run.config.loop.max_sampled_tokens is None for run in runs):
            raise UsageError(
                "a rival would sample without end",
                why=f"{self.experiment.file} has no sampled_tokens",
                mend="make an experiment that has, so that costs are equal",
            )
        return runs

    def reported(self) -> list[RivalRun]:
        """What the report has of earlier sweeps, as far as it is still there.

        Raises:
            UsageError: It is of another experiment.
        """
        file = self.shop.folder / FOLDER / SWEEPS
        swept = read_entry(file, "trainings", list[Swept]) if file.is_file() else []
        try:
            runs = [run for one in swept for run in self.runs(one.rival, [one.value], [one.seed])]
        except UsageError as error:
            why = f"{error.what}: {error.why}"
            raise UsageError(f"{file} is of another experiment", why=why, mend="move it away") from error
        return [run for run in runs if (self.folder_of(run) / RECORD).is_file()]

    def write(self, runs: Sequence[RivalRun], page: str) -> None:
        """The page, and what it has."""
        swept = dict.fromkeys(Swept(rival=run.rival, value=run.price, seed=run.seed) for run in runs)
        write_json(self.shop.folder / FOLDER / SWEEPS, {"trainings": [json_of(one) for one in swept]})
        write_bytes(self.shop.folder / FOLDER / REPORT, page.encode())

    def folder_of(self, run: RivalRun) -> Path:
        """Of its model, its record and its evaluation on the held-out questions."""
        return self.shop.folder / FOLDER / run.name

    def sampled_tokens(self, run: RivalRun) -> int:
        """As its training has counted them."""
        return read_entry(self.folder_of(run) / RECORD, "sampled_tokens", int)

    def train(self, run: RivalRun) -> None:
        """Have its library train it, unless it has.

        Raises:
            UsageError: Its folder holds another one, or its library is not installed.
            EngineError: The training failed.
        """
        folder = self.folder_of(run)
        asked, testbed = dump_yaml(run.config).encode(), folder / TESTBED
        if testbed.is_file() and testbed.read_bytes() != asked:
            raise UsageError(f"{folder} holds another rival", why=f"its {TESTBED} differs", mend="move it away")
        if (folder / RECORD).is_file():
            return
        library = RIVALS[run.rival].library
        python = ROOT / f".venv-{library}" / "bin" / "python"
        if not python.is_file():
            raise UsageError(f"{run.title} cannot be trained", why=f"{python} is not there", mend=f"make {library}")
        folder.mkdir(parents=True, exist_ok=True)
        write_if_new(testbed, asked)
        rival, *options = RIVALS[run.rival].options
        budget = str(run.config.loop.max_sampled_tokens)
        own = ["--sampled-tokens", budget, "--seed", str(run.seed), "--output", str(folder)]
        command = [str(python), "-m", f"benchmarks.peers.{library}_rivals", rival, str(folder), *options, *own]
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
        if done.returncode:
            why = f"its process ended with exit code {done.returncode}"
            raise EngineError(f"{run.name} was not trained", why=why, mend="see what it said above")

    def on_held_out(self, run: RivalRun) -> Measured | None:
        """Its figures there, measured as a round of the experiment is; None where ε³ is not defined.

        Raises:
            UsageError: It was trained from another base.
        """
        folder, reference = self.folder_of(run), self.references[run.setting, run.seed]
        base = CompletePhase.open(Step(None, "eval").folder(self.shop.folder_of(reference)), "eval")
        if read_entry(folder / RECORD, "inputs", dict[str, str])["model"] != base.manifest.inputs["model"]:
            why = "the model has changed since"
            raise UsageError(f"{folder} is not of the experiment's base", why=why, mend="move it away")
        measured = run.config.eval.model_copy(update={"baseline": str(base.root)})
        config = run.config.model_copy(update={"model": self._model(run), "eval": measured})
        questions = load_questions(held_out_data(config), grader=config.grading.grader, offline=True).questions
        found = evaluate(config, questions, folder / DEV)
        assert found is not None, "there is one part"
        accuracy, tokens, e3 = (found.metrics[name].value for name in ("accuracy", "tokens", "e3"))
        return None if accuracy is None or tokens is None or e3 is None else Measured(accuracy, tokens, e3)

    def prices(self, runs: Sequence[RivalRun], ends: Mapping[str, Measured | None]) -> list[PriceSweep]:
        """Of each setting, what the values are worth on the held-out questions. ends: by the names of trainings."""
        sweeps = []
        for name in dict.fromkeys(run.setting for run in runs):
            own = [run for run in runs if run.setting == name]
            references = [self.references[name, seed] for seed in dict.fromkeys(run.seed for run in own)]
            bases = [self.shop.lines_of(run)[0].measured for run in references]
            sweeps.append(sweep_of(name, own, ends, bases))
        return sweeps

    def compared(self, runs: Sequence[RivalRun], chosen: Chosen) -> tuple[list[SettingResult], Rows]:
        """The experiment's results with the chosen rivals among them, and for each seed what `vpgea compare` says."""
        results, said = [], Rows()
        for setting in self.found:
            numbers = Numbering()
            own = {seed: run for (name, seed), run in self.references.items() if name == setting.name}
            rounds = {seed: rounds_of(self.shop.lines_of(run)) for seed, run in own.items()}
            tests = {seed: self.shop.test(run, rounds[seed], setting.test)[0] for seed, run in own.items()}
            theirs = {seed: sample_table(test, numbers) for seed, test in tests.items()}
            tested: dict[str, list[Tested]] = {}
            sampled: dict[str, list[int]] = {}
            for run in runs:
                if run.setting == setting.name and run.price == chosen[run.setting, run.objective]:
                    test, base = self.shop.test_model(run, self._model(run), run.name, setting.test)
                    tables = sample_table(test, numbers), sample_table(base, numbers)
                    tested.setdefault(run.objective, []).append((run, *tables))
                    sampled.setdefault(run.objective, []).append(self.sampled_tokens(run))
                    verdict = compare([str(tests[run.seed].root), str(test.root)]).verdict
                    said.append((run.name, setting.test or "test", verdict))
            rivals = [
                objective_result(each, theirs, sampled_tokens=sampled[objective], rounds=None)
                for objective, each in tested.items()
            ]
            results.append(replace(setting, objectives=[*setting.objectives, *rivals]))
        return corrected(results), said

    def _model(self, run: RivalRun) -> ModelConfig:
        return run.config.model.model_copy(update={"path": str(self.folder_of(run) / MODEL), "adapter": None})


def _not_of(experiment: Experiment, folder: Path, why: str) -> UsageError:
    return UsageError(
        f"{folder} is not what {experiment.file} makes, or is not finished",
        why=why,
        mend=f"run `vpgea experiment {experiment.file} -o {folder}` to its end",
    )


def swept_runs(sweep: Sweep, given: Sequence[Sequence[str]], seeds: Sequence[int] | None) -> list[RivalRun]:
    """What all sweeps together ask for. given: of each, the rival and its values.

    Raises:
        UsageError: There is no such rival, a value is no number, or a training stands twice.
    """
    runs: list[RivalRun] = []
    for rival, *texts in given:
        if rival not in RIVALS:
            mend = did_you_mean(rival, RIVALS, f"give {', '.join(RIVALS)}")
            raise UsageError(f"there is no rival {rival}", why="a sweep begins with one", mend=mend)
        try:
            values = [float(text) for text in texts]
        except ValueError as error:
            raise UsageError(f"--sweep {rival}: a value is no number", why=str(error), mend="give numbers") from error
        if not values:
            raise UsageError(f"--sweep {rival} has no values", why="nothing is swept", mend=f"give {rival} some")
        runs += sweep.runs(rival, values, seeds)
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice[0]} stands twice", why="a rival or a value does", mend="give each once")
    return runs


def report(sweep: Sweep, runs: Sequence[RivalRun], ends: Mapping[str, Measured | None]) -> str:
    """Test what is chosen; the page. ends: training's name → its figures on the held-out questions."""
    prices, reference = sweep.prices(runs, ends), sweep.experiment.reference
    found, said = sweep.compared(runs, chosen_of(prices))
    lines = [f"# {sweep.experiment.file.name}, and outside rivals"]
    for one in prices:
        tests = [result for result in found if result.name == one.setting]
        for test in tests:
            lines += tables_of(test, reference)
        lines += forgetting_of(one.setting, tests)
        lines += ["", f"## {f'{one.setting}: ' if one.setting else ''}rivals on the held-out questions", ""]
        lines += markdown(PRICES, price_rows(one))
    lines += ["", f"## Each seed by itself against {reference}", ""]
    lines += markdown(("training", "test", "`vpgea compare`"), said)
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, make what is missing, compare; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        part = Part.parse(options.shard)
        sweep = Sweep(options.file, options.folder)
        runs = swept_runs(sweep, options.sweep, options.seeds)
        if part.count == 1:
            runs = list({run.name: run for run in [*sweep.reported(), *runs]}.values())
        ends = {}
        for run in part.of(runs):
            print(run.name, file=sys.stderr)
            sweep.train(run)
            ends[run.name] = sweep.on_held_out(run)
        if part.count > 1:
            print(f"{len(ends)} of {len(runs)} are done; without --shard all are compared", file=sys.stderr)
            return 0
        text = report(sweep, runs, ends)
    except VpgeaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    sweep.write(runs, text)
    print(text, end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the experiment: docs/experiment.md")
    parser.add_argument("folder", type=Path, help="its folder")
    parser.add_argument(
        "--sweep", action="append", nargs="+", required=True, metavar=("RIVAL", "VALUE"), help="repeatable"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="only these of the experiment")
    parser.add_argument(
        "--shard", default="0/1", help="i/N: train and measure every N-th alone, side by side with others"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

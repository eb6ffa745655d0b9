"""Sites, scripts and chains, as far as no scheduler is needed. The rest is in tests/integration/test_slurm_*.py."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated_run import round_line
from vpgea.cluster import scripts
from vpgea.cluster.chain import (
    StepState,
    Submission,
    job_name,
    job_prefix,
    planned,
    planned_parts,
    step_states,
)
from vpgea.cluster.queue import Job
from vpgea.cluster.site import Resources, Site
from vpgea.cluster.status import run_status
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.runs.layout import Step, all_steps
from vpgea.storage.files import write_json
from vpgea_cli.main import run

ROOT = Path(__file__).parents[3]
CONFIG = resolve(options={"model.path": "/models/one", "loop.rounds": 2, "rollout.questions_per_chunk": 4}).config


def chain(
    run_dir: Path, jobs: list[Job] | None = None, site: Site | None = None, config: RunConfig = CONFIG
) -> dict[str, Submission]:
    """What would be queued, by step; ids are 1, 2, ..."""
    found: list[Submission] = []
    site = site or Site(parts=3)

    def queue_up(submission: Submission) -> str:
        found.append(submission)
        return str(len(found))

    planned(step_states(config, run_dir, planned_parts(config, site, 40, 8)), jobs or [], run_dir, site, queue_up)
    return {submission.name.removeprefix(job_prefix(run_dir)): submission for submission in found}


def finish(run_dir: Path, step: Step, parts: int, done: list[int] | None = None) -> None:
    """The markers that a step leaves."""
    folder = run_dir / str(step)
    for part in range(parts) if done is None else done:
        (folder / "parts" / f"{part}-of-{parts}").mkdir(parents=True)
        write_json(folder / "parts" / f"{part}-of-{parts}" / "COMPLETE", {})
    if done is None:
        write_json(folder / "COMPLETE", {})
        if step.phase == "filter":
            write_json(folder / "summary.json", {})
        if step.phase == "eval":
            write_json(folder.parent / "round.json", round_line(step.round, tokens=9.0).as_json())


# --- steps --------------------------------------------------------------------------------------------------------


def test_steps_are_named_as_their_folders() -> None:
    names = [str(step) for step in all_steps(2)]
    assert names[:3] == ["base/eval", "round-000/rollout", "round-000/filter"]
    assert len(names) == 9
    assert [Step.parse(name) for name in names] == all_steps(2)


@pytest.mark.parametrize("text", ["", "rollout", "round-1/rollout", "round-000/train", "base/rollout", "../x"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no such step"):
        Step.parse(text)


# --- the chain ----------------------------------------------------------------------------------------------------


def test_a_new_run_is_queued_whole_each_step_after_the_one_before(tmp_path: Path) -> None:
    found = chain(tmp_path)
    assert list(found)[:4] == ["preflight", "base-eval", "r000-rollout", "r000-filter"]
    assert len(found) == 1 + 9
    assert found["base-eval"].after == ["1"]
    assert found["r000-rollout"].array == "0-2"
    assert found["r000-rollout"].arguments == ["round-000/rollout", "3"]
    assert found["base-eval"].array == "0-1", "8 held-out questions are two chunks: a third part would be empty"
    assert found["r001-distill"].array is None
    assert found["r001-distill"].arguments == ["round-001/distill"]
    options = found["r000-filter"].options(tmp_path, Site(parts_at_once=2))
    assert "--dependency=afterok:3,singleton" in options
    assert "--kill-on-invalid-dep=yes" in options
    assert "--array=0-2%2" in options


def test_other_nodes_for_training_have_a_preflight_of_their_own(tmp_path: Path) -> None:
    found = chain(tmp_path, site=Site(training=Resources(partition="big")))
    assert found["base-eval"].after == ["1", "2"]
    assert found["preflight-training"].script.name == "preflight-training.sh"


def test_what_is_done_is_not_queued_again(tmp_path: Path) -> None:
    finish(tmp_path, Step(None, "eval"), 2)
    finish(tmp_path, Step(0, "rollout"), 3)
    finish(tmp_path, Step(0, "filter"), 3, done=[0, 2])
    found = chain(tmp_path)
    assert list(found)[:3] == ["preflight", "r000-filter", "r000-distill"]
    assert found["r000-filter"].array == "1", "the part that failed, alone"


def test_a_step_keeps_the_number_of_parts_with_which_it_began(tmp_path: Path) -> None:
    finish(tmp_path, Step(None, "eval"), 2)
    finish(tmp_path, Step(0, "rollout"), 5, done=[0])
    found = chain(tmp_path, site=Site(parts=2))
    assert found["r000-rollout"].array == "1-4"
    assert found["r000-rollout"].arguments[1] == "5"
    assert found["r000-filter"].array == "0-1"


def test_parts_that_are_all_done_without_the_whole_are_settled_by_one_job(tmp_path: Path) -> None:
    finish(tmp_path, Step(None, "eval"), 2)
    finish(tmp_path, Step(0, "rollout"), 3, done=[0, 1, 2])
    assert chain(tmp_path)["r000-rollout"].array == "0"


def test_what_is_queued_is_not_queued_again_but_waited_for(tmp_path: Path) -> None:
    finish(tmp_path, Step(None, "eval"), 2)
    name = job_name(tmp_path, Step(0, "rollout"))
    jobs = [Job("70_0", name, "RUNNING", "None"), Job("70_2", name, "PENDING", "Priority")]
    found = chain(tmp_path, jobs)
    assert found["r000-rollout"].array == "1"
    assert found["r000-filter"].after == ["70_0", "70_2", "2"]

    everything = [
        Job(f"{number}_{part}", job_name(tmp_path, step), "PENDING", "Dependency")
        for number, step in enumerate(all_steps(2), start=70)
        for part in range(3)
    ]
    assert chain(tmp_path, everything) == {}


def test_sbatch_reads_no_pattern_out_of_a_folders_name(tmp_path: Path) -> None:
    submission = Submission(name="x", script=Path("x.sh"), arguments=[], array=None, after=[])
    [output] = [one for one in submission.options(tmp_path / "per%jcent 100%", Site()) if one.startswith("--output=")]
    assert output == f"--output={tmp_path}/per%%jcent 100%%/logs/slurm/%x-%j.out"


@pytest.mark.parametrize("command", ["loop --launcher slurm -o {}", "slurm submit {}", "slurm render {}"])
def test_a_backslash_in_a_folders_name_is_refused_before_anything_is_written(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "back\\slash"
    (tmp_path / "site.yaml").write_text("parts: 2\n", encoding="utf-8")
    (tmp_path / "loop.yaml").write_text(dump_yaml(RunConfig()), encoding="utf-8")
    given = ["--config", str(tmp_path / "loop.yaml"), "--site", str(tmp_path / "site.yaml")]
    assert run([*(word.format(run_dir) for word in command.split()), *given]) == 2
    assert "there is a backslash in its path" in capsys.readouterr().err
    assert not run_dir.exists()


def test_jobs_of_other_runs_have_other_names(tmp_path: Path) -> None:
    assert job_prefix(tmp_path / "a") != job_prefix(tmp_path / "b")


@pytest.mark.parametrize(
    ("parts", "text"), [([0], "0"), ([0, 1, 2], "0-2"), ([1, 3, 4, 9], "1,3-4,9"), ([0, 2, 4], "0,2,4")]
)
def test_an_array_names_the_missing_parts(parts: list[int], text: str, tmp_path: Path) -> None:
    finish(tmp_path, Step(0, "rollout"), 10, done=[part for part in range(10) if part not in parts])
    assert chain(tmp_path)["r000-rollout"].array == text


def test_a_step_is_done_only_with_what_is_derived_from_its_parts(tmp_path: Path) -> None:
    finish(tmp_path, Step(0, "filter"), 2)
    (tmp_path / "round-000" / "filter" / "summary.json").unlink()
    states = {str(state.step): state for state in step_states(CONFIG, tmp_path, lambda step: 2)}
    assert states["round-000/filter"] == StepState(
        step=Step(0, "filter"), parts=2, done_parts=frozenset({0, 1}), is_done=False
    )
    assert states["round-000/filter"].missing == [0]


# --- the site -----------------------------------------------------------------------------------------------------


def test_the_example_site_and_the_page_name_every_key() -> None:
    site = ROOT / "examples" / "slurm" / "site.yaml"
    assert Site.read(site).parts == 16
    page, example = (ROOT / "docs" / "slurm.md").read_text(), site.read_text()
    for name in Site.model_fields:
        assert f"`{name}" in page, name
        assert f"{name}:" in example, name
    for name in Resources.model_fields:
        assert f"`{name}`" in page, name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition: gpu\n", "partition (line 1): unknown key"),
        ("parts: many\n", "parts (line 1)"),
        ("parts: 0\n", "greater than or equal to 1"),
        ("training:\n  time: 2 hours\n", "training.time (line 2)"),
        ("environment: {A: 1}\n", "environment.A"),
        ("- parts\n", "it"),
        ("a: !!python/object/apply:os.system [ls]\n", "not readable as YAML"),
        ("templates: nowhere\n", "templates of the site not found"),
    ],
)
def test_a_wrong_site_file_is_an_error_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        Site.read(file)
    assert said in str(error.value)


def test_a_missing_site_file_is_an_error_only_when_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Site.read(None) == Site()
    (tmp_path / "vpgea").mkdir()
    (tmp_path / "vpgea" / "site.yaml").write_text("parts: 5\n")
    assert Site.read(None).parts == 5
    with pytest.raises(UsageError, match="cannot be read"):
        Site.read(tmp_path / "other.yaml")


# --- scripts ------------------------------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "account": "proj",
    "qos": "high",
    "container": "apptainer exec --nv '/images/my image.sif'",
    "modules": ["cuda/12.8"],
    "setup": ["source /venv/bin/activate"],
    "environment": {"HF_HOME": "/scratch/it's here"},
    "max_requeues": 3,
    "signal_seconds": 60,
    "training": Resources(
        partition="big",
        nodes=2,
        tasks_per_node=4,
        gpus_per_node=4,
        cpus_per_task=8,
        memory="64G",
        time="01:00:00",
        constraint="h100|a100",
        options=["--exclusive"],
    ),
}


@pytest.mark.parametrize("site", [Site(), Site(**FULL)], ids=["plain", "full"])
def test_scripts_are_bash(site: Site, tmp_path: Path) -> None:
    texts = scripts.render(CONFIG, site, tmp_path / "a run")
    assert set(texts) == {f"{name}.sh" for name in scripts.NAMES}
    for text in texts.values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        head = text.split("\n\n")[0]
        assert head.startswith("#!/bin/bash\n#SBATCH --requeue --open-mode=append --signal=B:USR1@")
        assert "\n\n\n\n" not in text
        assert all(line.startswith("#SBATCH") for line in text.splitlines() if "SBATCH" in line), "none after commands"


def test_scripts_hold_what_the_site_wants(tmp_path: Path) -> None:
    texts = scripts.render(CONFIG, Site(**FULL), tmp_path)
    distill = texts["distill.sh"]
    for wanted in (
        *("--partition=big", "--nodes=2 --ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=8", "--mem=64G"),
        *("--time=01:00:00", "--constraint='h100|a100'", "--exclusive", "--account=proj", "--qos=high"),
        *("module load cuda/12.8", "source /venv/bin/activate", "export HF_HOME='/scratch/it'\"'\"'s here'"),
        *("apptainer exec --nv", "RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS", "-lt 3 ]", "USR1@60"),
    ):
        assert wanted in distill, wanted
    assert "big" not in texts["rollout.sh"]
    assert "torchrun" not in "".join(texts.values())


def test_a_site_can_replace_one_template(tmp_path: Path) -> None:
    (tmp_path / "rollout.sh.j2").write_text("#!/bin/bash\n# ours, for {{ model }}\n")
    texts = scripts.render(CONFIG, Site(templates=str(tmp_path)), tmp_path)
    assert texts["rollout.sh"] == "#!/bin/bash\n# ours, for /models/one\n"
    assert "SBATCH" in texts["filter.sh"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch OWNED') }}",
        "{{ unknown }}",
        "{% if %}",
    ],
)
def test_templates_can_run_nothing(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollout.sh.j2").write_text(text)
    with pytest.raises(UsageError, match="the template of rollout cannot be rendered"):
        scripts.render(CONFIG, Site(templates=str(tmp_path)), tmp_path)
    assert not (tmp_path / "OWNED").exists()


def test_edited_scripts_stay_and_others_follow_the_site(tmp_path: Path) -> None:
    assert scripts.write(scripts.render(CONFIG, Site(), tmp_path), tmp_path) == []
    script = tmp_path / "slurm" / "rollout.sh"
    script.write_text(script.read_text() + "# mine\n")
    assert scripts.write(scripts.render(CONFIG, Site(account="other"), tmp_path), tmp_path) == ["rollout.sh"]
    assert script.read_text().endswith("# mine\n")
    assert "--account=other" in (tmp_path / "slurm" / "filter.sh").read_text()
    script.unlink()
    assert scripts.write(scripts.render(CONFIG, Site(), tmp_path), tmp_path) == []
    assert script.stat().st_mode & 0o100


# --- status without a scheduler -----------------------------------------------------------------------------------


def test_status_reads_folder_and_logs_where_the_queue_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    finish(tmp_path, Step(None, "eval"), 2)
    finish(tmp_path, Step(0, "rollout"), 3, done=[0, 2])
    logs = tmp_path / scripts.LOGS
    logs.mkdir(parents=True)
    name = job_name(tmp_path, Step(0, "rollout"))
    (logs / f"{name}-7_1.out").write_text("an older attempt\nvpgea: round-000/rollout exit 4\n")
    (logs / f"{name}-12_1.out").write_text("error: it broke\nwhy:   so\nvpgea: round-000/rollout exit 1\n")
    (logs / f"{name}-7_0.out").write_text("fine\nvpgea: round-000/rollout exit 0\n")
    (logs / f"{job_name(tmp_path, 'preflight')}-5.out").write_text("no\nvpgea: preflight exit 2\n")
    found = run_status(CONFIG, tmp_path)
    assert [step.word for step in found.steps][:3] == ["done", "failed", "not queued"]
    failure = found.failures[0]
    assert (failure.job, failure.part, failure.exit_code) == ("12_1", 1, 1)
    assert failure.lines == ["error: it broke", "why:   so"]
    assert len(found.failures) == 1, "the preflight before it was of an earlier submission"
    assert "squeue is not on this machine" in found.advice


def test_a_job_that_left_no_word_does_not_hide_why_the_one_before_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    finish(tmp_path, Step(None, "eval"), 1)
    logs = tmp_path / scripts.LOGS
    logs.mkdir(parents=True)
    for name in (job_name(tmp_path, Step(0, "rollout")), job_name(tmp_path, "preflight")):
        part = "_0" if "rollout" in name else ""
        (logs / f"{name}-7{part}.out").write_text("the first\nvpgea: it exit 1\n")
        (logs / f"{name}-12{part}.out").write_text("the second\nvpgea: it exit 137\n")
        (logs / f"{name}-13{part}.out").write_text("cancelled before it began\n")
        (logs / f"{name}-14{part}.out").write_text("cancelled while it began\n")
    rollout = [(one.job, one.exit_code) for one in run_status(CONFIG, tmp_path).failures]
    assert rollout == [("14_0", None), ("12_0", 137)]
    for log in logs.glob("*_0.out"):
        log.unlink()
    preflight = [(one.job, one.exit_code) for one in run_status(CONFIG, tmp_path).failures]
    assert preflight == [("14", None), ("12", 137)]


def test_the_table_of_a_status_has_all_kinds_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "config.yaml").write_text(dump_yaml(CONFIG))
    for step in all_steps(1):
        finish(tmp_path, step, 1)
    finish(tmp_path, Step(1, "rollout"), 3, done=[1])
    assert run(["slurm", "status", str(tmp_path)]) == 0
    told = capsys.readouterr()
    rows = [line.split() for line in told.err.splitlines()]
    assert rows[2][:3] == ["base", "all", "done"]
    assert rows[3][:3] == ["0", "all", "done"]
    assert rows[4] == ["1", "rollout", "not", "queued", "1/3"]
    assert "the table is from the run folder alone" in told.out

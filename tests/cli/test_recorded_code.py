"""A folder of somebody else runs no code of theirs, whatever reads on from it, and says how to allow it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.finished import finished_runs
from vpgea_cli.main import run


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished rollout, filter, distillation and loop whose records ask for the model's own code."""
    place = tmp_path_factory.getbasetemp() / "finished"
    place.mkdir(exist_ok=True)
    finished = finished_runs(place, tiny_model)
    folder = tmp_path_factory.mktemp("foreign")
    for source in (finished.rollout, finished.filter, finished.distill, finished.loop):
        shutil.copytree(source, folder / source.name)
    for manifest in folder.rglob("manifest.json"):
        value = json.loads(manifest.read_text(encoding="utf-8"))
        value["config"]["model.trust_remote_code"] = True
        manifest.write_text(json.dumps(value), encoding="utf-8")
    record = folder / "loop" / "config.yaml"
    record.write_text(record.read_text("utf-8").replace("trust_remote_code: false", "trust_remote_code: true"), "utf-8")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "filter {}/rollout -o {}/out",
        "distill {}/filter -o {}/out",
        "export {}/distill -o {}/out",
        "export {}/loop --round 0 -o {}/out",
        "slurm render {}/loop",
        "slurm submit {}/loop",
        "slurm preflight {}/loop",
        "doctor {}/broken --repair",
        "doctor {}/broken-loop --repair",
    ],
)
def test_no_command_takes_code_from_a_folder(
    command: str, foreign: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VPGEA_MODEL__TRUST_REMOTE_CODE", raising=False)
    for name, shard in (("rollout", "parts"), ("loop", "round-000/rollout/parts")):
        broken = foreign / {"rollout": "broken", "loop": "broken-loop"}[name]
        if not broken.exists():
            shutil.copytree(foreign / name, broken)
            (broken / shard / "0-of-1" / "chunk-00000.arrow").unlink()
    assert run(command.format(*[foreign] * command.count("{}")).split()) == 2
    told = capsys.readouterr().err
    assert "model.trust_remote_code would run code that was not asked for" in told
    assert "VPGEA_MODEL__TRUST_REMOTE_CODE in the environment" in told
    assert not (foreign / "out").exists()
    assert not list(foreign.rglob("damaged")), "nothing was set aside before it was refused"


def test_what_runs_no_code_needs_no_word_about_it(foreign: Path) -> None:
    for command in (f"doctor {foreign}/loop", f"inspect {foreign}/loop", f"inspect {foreign}/rollout"):
        assert run(command.split()) == 0


def test_the_user_may_ask_for_it(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = f"filter {foreign}/rollout -o {tmp_path}/filter -q --set model.trust_remote_code=false"
    assert run(refused.split()) == 0
    monkeypatch.setenv("VPGEA_MODEL__TRUST_REMOTE_CODE", "true")
    assert run(f"export {foreign}/distill -o {tmp_path}/exported -q".split()) == 0

"""Settings that run code come from the user, never from what a folder recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vpgea.config.resolve import dump_yaml, flat_config, resolve, resolve_recorded
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError

CODE: list[tuple[str, Any, str]] = [
    ("model.trust_remote_code", True, "--set model.trust_remote_code=true"),
    ("grading.grader", "planted:grade", "--set grading.grader=planted:grade"),
    ("sglang.python", "/tmp/python", "--set sglang.python=/tmp/python"),
    ("sglang.options", ["--trust-remote-code"], "VPGEA_SGLANG__OPTIONS"),
    ("sglang.server_url", "http://127.0.0.1:1", "VPGEA_SGLANG__SERVER_URL"),
]


def recorded(**changes: Any) -> dict[str, Any]:
    return flat_config(RunConfig()) | changes


@pytest.mark.parametrize(("key", "value", "mend"), CODE)
def test_a_folder_cannot_ask_for_code(key: str, value: Any, mend: str) -> None:
    for asked in (
        lambda: resolve(inherited=[("rollout folder x", recorded(**{key: value}))], env={}),
        lambda: resolve_recorded("folder x", recorded(**{key: value}), env={}),
    ):
        with pytest.raises(UsageError, match=f"{key} would run code") as error:
            asked()
        assert "folder x" in error.value.why
        assert mend in error.value.mend


@pytest.mark.parametrize("key", ["model.trust_remote_code", "grading.grader"])
def test_the_user_decides_for_and_against_it(key: str) -> None:
    folder = [("folder x", recorded(**{"model.trust_remote_code": True, "grading.grader": "planted:grade"}))]
    other = {"model.trust_remote_code": "false", "grading.grader": "exact"}
    no = [f"{name}={value}" for name, value in other.items()]
    assert resolve(inherited=folder, sets=no).config == resolve(inherited=[("x", recorded())], sets=no).config
    yes = resolve(inherited=folder, sets=["model.trust_remote_code=true", "grading.grader=own:grade"]).config
    assert (yes.model.trust_remote_code, yes.grading.grader) == (True, "own:grade")
    half = [one for one in no if not one.startswith(key)]
    with pytest.raises(UsageError, match=key):
        resolve(inherited=folder, sets=half)


def test_a_command_that_takes_all_of_a_folder_hears_the_environment_for_code_alone(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"model": {"trust_remote_code": True}, "rollout": {"seed": 5}})
    (tmp_path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    env = {"VPGEA_ROLLOUT__SEED": "9", "VPGEA_NO_SUCH": "x"}
    with pytest.raises(UsageError, match="trust_remote_code would run code"):
        resolve_recorded("x", tmp_path / "config.yaml", env=env)
    env["VPGEA_MODEL__TRUST_REMOTE_CODE"] = "true"
    assert resolve_recorded("x", tmp_path / "config.yaml", env=env) == config


def test_built_in_graders_and_defaults_are_taken_over() -> None:
    assert resolve_recorded("x", recorded(**{"grading.grader": "choice"}), env={}).grading.grader == "choice"

"""Planted secrets must not turn up in anything that is written or said."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.loops import write_config

SECRETS = {
    name: f"planted-{number}-7f3c9a51"
    for number, name in enumerate(
        ("VPGEA_SERVER_API_KEY", "VPGEA_SERVER_ADMIN_KEY", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")
    )
}
Cli = Callable[..., subprocess.CompletedProcess[str]]


def expect_none(folder: Path, *told: str) -> None:
    found = [
        f"{path}: {name}"
        for path in folder.rglob("*")
        if path.is_file()
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]
    found += [f"said: {name}" for text in told for name, secret in SECRETS.items() if secret in text]
    assert not found


@pytest.fixture(scope="module")
def config(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("secrets"), tiny_model, loop__rounds=1)


def test_a_run_holds_no_secret_of_its_environment(config: Path, tmp_path: Path, here: Cli) -> None:
    run = tmp_path / "run"
    done = here("loop", "-c", config, "-o", run, "-v", env=SECRETS)
    assert done.returncode == 0, done.stderr
    told = [done.stdout, done.stderr]
    for words in (
        ("config", "show", "-c", config),
        ("inspect", run, "--json"),
        ("slurm", "render", run),
        ("slurm", "status", run),
        ("doctor", "--json"),
        ("export", run, "--round", "0", "-o", tmp_path / "exported"),
    ):
        found = here(*words, env={**SECRETS, "PATH": "/nowhere"} if words[0] == "slurm" else SECRETS)
        assert found.returncode == 0, (words, found.stderr)
        told += [found.stdout, found.stderr]
    expect_none(tmp_path, *told)


def test_a_failure_says_no_secret_even_with_its_traceback(config: Path, tmp_path: Path, here: Cli) -> None:
    url = "http://127.0.0.1:9"  # nothing listens there
    words = ("--server-url", url, "--set", "sglang.patience_s=1")
    done = here("loop", "-c", config, "-o", tmp_path / "run", *words, env={**SECRETS, "VPGEA_DEBUG": "1"})
    assert done.returncode == 4
    assert "Traceback" in done.stderr
    expect_none(tmp_path, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:SECRET@127.0.0.1:9",
        "http://one:1,https://SECRET@two:2",
        "http://127.0.0.1:9/?token=SECRET",
        "127.0.0.1:9/?token=SECRET",
        "http://127.0.0.1:9/#SECRET",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(config: Path, tmp_path: Path, here: Cli, url: str) -> None:
    secret = SECRETS["HF_TOKEN"]
    done = here("loop", "-c", config, "-o", tmp_path / "run", "--server-url", url.replace("SECRET", secret))
    assert done.returncode == 2
    assert "VPGEA_SERVER_API_KEY" in done.stderr
    expect_none(tmp_path, done.stdout, done.stderr)


def test_a_secret_in_the_url_of_a_list_is_refused_and_not_repeated(config: Path, tmp_path: Path, here: Cli) -> None:
    secret, servers = SECRETS["HF_TOKEN"], tmp_path / "servers@home.txt"
    servers.write_text(f"http://127.0.0.1:9/?token={secret}\n", encoding="utf-8")
    done = here("rollout", "-c", config, "-o", tmp_path / "run", "--server-url", servers)
    assert done.returncode == 2
    assert "VPGEA_SERVER_API_KEY" in done.stderr
    servers.unlink()
    expect_none(tmp_path, done.stdout, done.stderr)


def test_a_key_among_the_options_of_a_server_is_refused(config: Path, tmp_path: Path, here: Cli) -> None:
    done = here("loop", "-c", config, "-o", tmp_path / "run", "--", "--api-key", SECRETS["HF_TOKEN"])
    assert done.returncode != 0
    assert SECRETS["HF_TOKEN"] not in done.stdout + done.stderr
    expect_none(tmp_path)


def test_remote_code_runs_only_when_asked_for_and_is_recorded(config: Path, tmp_path: Path, here: Cli) -> None:
    run = tmp_path / "run"
    assert here("loop", "-c", config, "-o", run, "--set", "model.trust_remote_code=true", "-q").returncode == 0
    assert '"model.trust_remote_code": true' in (run / "round-000/rollout/parts/0-of-1/manifest.json").read_text()

"""What a later phase would refuse is refused before anything is sampled, and before a folder is claimed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.finished import small_config
from tests.support.model_files import edit, make_adapter
from tests.support.selection_rows import distill_config
from vpgea.config.schema import RunConfig, with_values
from vpgea.errors import UsageError
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.loop import Loop
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullReporter
from vpgea.training.requirements import require_trainable
from vpgea_cli.main import run


def ask(config: RunConfig) -> None:
    require_trainable(config, LocalModel.resolve(config.model))


@pytest.mark.parametrize(
    ("dotted", "what", "mend"),
    [
        ({"distill__lora__targets": ["q_proj", "qq_proj"]}, "qq_proj", "down_proj, gate_proj, k_proj, lm_head, o_proj"),
        ({"distill__reference": "elsewhere"}, "cannot be combined with LoRA", "distill.train=full"),
        ({"distill__train": "full", "distill__reference": "/elsewhere"}, "/elsewhere", ""),
    ],
)
def test_what_the_configuration_asks_must_be_there(
    tiny_model: Path, dotted: dict[str, Any], what: str, mend: str
) -> None:
    with pytest.raises(UsageError, match=what) as error:
        ask(distill_config(tiny_model, **dotted))
    assert mend in error.value.mend


def test_a_reference_of_another_vocabulary_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    described = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(described | {"vocab_size": described["vocab_size"] + 8}))
    with pytest.raises(UsageError, match="is of another vocabulary"):
        ask(distill_config(tiny_model, distill__train="full", distill__reference=str(other)))
    ask(distill_config(tiny_model, distill__train="full", distill__reference=str(tiny_model)))


@pytest.mark.parametrize("package", ["wandb", "tensorboard", "trackio"])
def test_a_package_is_asked_for_and_not_installed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what an import of a missing package meets
    with pytest.raises(UsageError, match=f"{package} is not installed"):
        ask(distill_config(tiny_model, distill__log_to=[package]))


def test_wandb_needs_a_key_unless_nothing_is_sent(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distill_config(tiny_model, distill__log_to=["wandb"])
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UsageError, match="wandb has no key"):
        ask(config)
    (tmp_path / "netrc").write_text("machine wandb.example login user password secret\n")
    with pytest.raises(UsageError, match="wandb has no key"):
        ask(config)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    ask(config)
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ask(config)


def test_a_loop_asks_before_it_claims_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path, tiny_model)
    lora = config.distill.lora.model_copy(update={"targets": ["nonsense"]})
    refused = config.model_copy(update={"distill": config.distill.model_copy(update={"lora": lora})})
    with pytest.raises(UsageError, match="no adapter can be put on nonsense"):
        Loop.open(refused, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Loop.open(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"rollout.prior_samples": 0, "rollout.posterior_samples": 0}, "nothing to sample"),
        ({"views.end_of_thinking": None}, "the posterior view has nothing to sample"),
        ({"rollout.max_new_tokens": 1 << 51}, "can outgrow the model's context"),
        ({"rollout.temperature": 0.6, "filter.advantage.gate": "plausible"}, "gate=plausible"),
        ({"filter.teacher_top_k": 1 << 20}, "teacher_top_k is 1,048,576"),
    ],
)
def test_what_the_first_rollout_or_filter_would_refuse_is_refused_before_the_base_is_measured(
    tiny_model: Path, tmp_path: Path, values: dict[str, Any], what: str
) -> None:
    config = small_config(tmp_path, tiny_model)
    with pytest.raises(UsageError, match=what):
        Loop.open(with_values(config, values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_architecture_that_cannot_be_packed_is_refused_before_anything_is_sampled(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    window = {"use_sliding_window": True, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    edit(model / "config.json", model_type="qwen2_moe", shared_expert_intermediate_size=32, **window, **experts)
    config = small_config(tmp_path, model)
    with pytest.raises(UsageError, match="models of type qwen2_moe cannot take packed sequences"):
        Loop.open(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    require_trainable(config, LocalModel.resolve(config.model), continued=True)  # it is not asked in every round
    Loop.open(with_values(config, {"distill.packing": False}), tmp_path / "run")


@pytest.mark.parametrize("kind", ["gpt_oss", "mamba", "bloom"])
def test_an_architecture_that_attends_in_another_way_is_refused_before_anything_is_sampled(
    kind: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoConfig

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    described = json.loads((model / "config.json").read_text(encoding="utf-8"))
    sizes = {"num_hidden_layers": 2, "vocab_size": described["vocab_size"]}
    AutoConfig.for_model(kind, **sizes, dtype="float32").save_pretrained(model)
    words = f"models of type {kind} can neither be scored nor trained"
    for packing in (True, False):
        config = with_values(small_config(tmp_path, model), {"distill.packing": packing})
        with pytest.raises(UsageError, match=words):
            Loop.open(config, tmp_path / "run")
    asked = ["--model", str(model), "--dataset", str(config.data.dataset), "--set", "rollout.engine=transformers"]
    assert run(["rollout", *asked, "--dry-run"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=words):
        load_model(LocalModel.resolve(config.model))


class Told(NullReporter):
    """Keeps what it is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize(
    ("options", "named"), [({"use_rslora": True}, "use_rslora"), ({"target_modules": ["q_proj"]}, "stands on q_proj")]
)
def test_a_run_that_was_begun_from_such_an_adapter_goes_on_with_a_warning(
    tiny_model: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    """Its identity holds the adapter and the targets, so that nothing could be mended; a new run is refused."""
    config = small_config(tmp_path, tiny_model)
    lora = config.distill.lora
    shape = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    adapter = make_adapter(tiny_model, tmp_path / "adapter", **{**shape, **options})
    config = config.model_copy(update={"model": config.model.model_copy(update={"adapter": str(adapter)})})
    with pytest.raises(UsageError, match="the adapter") as error:
        Loop.open(config, tmp_path / "run")
    assert named in error.value.why
    PhaseFolder.open(tmp_path / "run", Loop.read(config, tmp_path / "run").manifest)  # as a version before did
    reporter = Told()
    Loop.open(config, tmp_path / "run", reporter=reporter)
    assert any(named in warning for warning in reporter.warnings)
    with pytest.raises(UsageError, match="the adapter"):
        Loop.open(config, tmp_path / "run", overwrite=True)

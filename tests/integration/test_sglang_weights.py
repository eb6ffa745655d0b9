"""Which weights a real server serves: brought, verified, and refused before they can do harm."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import overthinker, rollouts, servers, tiny
from tests.support.models import causal_model
from tests.support.whole_logits import next_token_logits
from vpgea.config.schema import ModelConfig
from vpgea.config.training import DistillConfig, LoraConfig
from vpgea.engines.sglang.server.command import free_port
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.engines.sglang.traffic.answers import ModelInfo, Words
from vpgea.engines.sglang.traffic.client import Refused, ServerClient, Unreachable, open_session
from vpgea.engines.sglang.traffic.endpoints import Endpoint
from vpgea.engines.sglang.traffic.wire import Served
from vpgea.engines.sglang.weights.adapters import loaded_adapters
from vpgea.engines.sglang.weights.establish import Evidence, canary_difference, establish, require_follows
from vpgea.errors import QualityGateError, UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.logprobs import token_logprobs
from vpgea.modeling.weight_files import write_checksums
from vpgea.runs.records import Canary
from vpgea.storage.records import read_record

pytestmark = pytest.mark.sglang
BASE = overthinker.ROOT / "base-global"
TENSORS = 20  # that the server holds: 3 layers of 6, the embedding, the last norm
T = TypeVar("T")


def at(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(path=str(folder), device="cpu", threads=1, **more)


BASE_FINGERPRINT = LocalModel.resolve(at(BASE)).fingerprint


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with servers.serving(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def endpoint(server: ServerProcess) -> Endpoint:
    """The server with its base weights under their own version."""
    load(server.endpoint, BASE, BASE_FINGERPRINT)
    return server.endpoint


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The base's folder, to be changed."""
    return Path(shutil.copytree(BASE, tmp_path / "copy"))


@pytest.fixture
def trained(copy: Path) -> Path:
    """Other weights of the same model, published as a training step does."""
    edit_weights(copy, lambda name, tensor: tensor + 0.02 * torch.randn(tensor.shape) if tensor.dim() > 1 else tensor)
    write_canary(at(copy), copy)
    write_checksums(copy)
    return copy


def call(endpoint: Endpoint, use: Callable[[ServerClient], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_session() as session:
            return await use(ServerClient(endpoint, session))

    return asyncio.run(run())


def ensure(endpoint: Endpoint, model: ModelConfig, replaceable: Collection[str] = ()) -> tuple[Served, Evidence]:
    return call(endpoint, lambda client: establish(client, model, replaceable=replaceable, timeout_s=60))


def post(endpoint: Endpoint, path: str, **body: Any) -> None:
    call(endpoint, lambda client: client.post(path, body, Words, timeout_s=60, admin=True))


def load(endpoint: Endpoint, folder: Path, version: str) -> None:
    """As anyone may do who has the key: nothing is compared."""
    post(endpoint, "/flush_cache?timeout=60")
    post(endpoint, "/update_weights_from_disk", model_path=str(folder), weight_version=version)


def edit_weights(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
    """Write the model's tensors again as `change` gives them; without those for which it gives None."""
    torch.manual_seed(0)
    file = folder / "model.safetensors"
    changed = {name: change(name, tensor) for name, tensor in sorted(load_file(file).items())}
    kept = {name: tensor.contiguous() for name, tensor in changed.items() if tensor is not None}
    save_file(kept, file, metadata={"format": "pt"})


def write_canary(model: ModelConfig, folder: Path) -> list[dict[str, Any]]:
    """Log-probabilities by transformers beside the weights, as `distill` publishes them."""
    causal = causal_model(model)
    vocabulary = causal.config.vocab_size
    sequences = [[(7 * start + 3 * index * index) % vocabulary for index in range(80)] for start in (1, 9, 30)]
    starts = [1, 9, 30]
    targets = torch.tensor([token for ids, start in zip(sequences, starts, strict=True) for token in ids[start:]])
    with torch.inference_mode():
        logprobs = token_logprobs(next_token_logits(causal, sequences, starts, torch.device("cpu")).float(), targets)
    parts = torch.split(logprobs, [80 - start for start in starts])
    paths = [
        {"ids": ids, "start": start, "logprobs": part.tolist()}
        for ids, start, part in zip(sequences, starts, parts, strict=True)
    ]
    dtype = str(next(causal.parameters()).dtype)
    (folder / "vpgea_canary.json").write_text(json.dumps({"dtype": dtype, "paths": paths}), encoding="utf-8")
    return paths


def make_adapter(folder: Path, base: Path = BASE, *, std: float = 0.05, seed: int = 0, **options: Any) -> Path:
    """A LoRA adapter with random B, and its canary."""
    torch.manual_seed(seed)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}
    model = peft.get_peft_model(causal_model(at(base)), peft.LoraConfig(task_type="CAUSAL_LM", **chosen))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    write_canary(at(base, adapter=str(folder)), folder)
    return folder


# --- base weights ---------------------------------------------------------------------------------------------------


def test_the_model_that_the_server_was_started_with_is_verified_by_checksums(endpoint: Endpoint) -> None:
    expected = Served(BASE_FINGERPRINT), Evidence(BASE_FINGERPRINT, TENSORS, None)
    assert ensure(endpoint, at(BASE)) == expected
    assert ensure(endpoint, at(BASE)) == expected


def test_new_weights_are_loaded_and_agree_with_transformers(endpoint: Endpoint, trained: Path) -> None:
    fingerprint = LocalModel.resolve(at(trained)).fingerprint
    served, evidence = ensure(endpoint, at(trained), {BASE_FINGERPRINT, fingerprint})
    assert served == Served(fingerprint)
    assert evidence.checksums_compared == TENSORS
    assert evidence.canary_difference is not None
    assert evidence.canary_difference < 1e-4
    assert ensure(endpoint, at(BASE), {BASE_FINGERPRINT, fingerprint})[0] == Served(BASE_FINGERPRINT)


def test_weights_that_are_not_this_run_s_are_never_replaced(endpoint: Endpoint, trained: Path) -> None:
    with pytest.raises(UsageError, match="serves another model") as caught:
        ensure(endpoint, at(trained))
    assert BASE_FINGERPRINT in caught.value.why
    assert LocalModel.resolve(at(trained)).fingerprint in caught.value.why
    with pytest.raises(UsageError, match="serves another model"):
        ensure(endpoint, at(trained), {"0123456789abcdef"})
    assert ensure(endpoint, at(BASE))[0] == Served(BASE_FINGERPRINT)


def shorten(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1000)


def narrow(folder: Path) -> None:
    edit_weights(folder, lambda name, tensor: tensor[:, :-8] if name.endswith("0.mlp.up_proj.weight") else tensor)


def leave_one_out(folder: Path) -> None:
    edit_weights(folder, lambda name, tensor: None if name.endswith("1.mlp.down_proj.weight") else tensor)


def turn_a_bit(folder: Path) -> None:
    """In the middle of a file whose checksum was recorded."""
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(100_000)
        byte = stream.read(1)[0]
        stream.seek(100_000)
        stream.write(bytes([byte ^ 1]))


def turn_faster(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields["rope_parameters"]["rope_theta"] = 5000.0
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    write_checksums(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shorten, "damaged weights"),
        (narrow, "damaged weights"),
        (turn_a_bit, "checksum is not the recorded one"),
        (turn_faster, "rope_parameters"),
    ],
)
def test_a_published_folder_that_is_damaged_or_of_another_model_is_refused(
    endpoint: Endpoint, trained: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(trained)
    with pytest.raises(UsageError, match=said):
        ensure(endpoint, at(trained), {BASE_FINGERPRINT})
    assert ensure(endpoint, at(BASE))[1].checksums_compared == TENSORS


@pytest.mark.parametrize(("spoil", "said"), [(narrow, "up_proj.weight is"), (leave_one_out, "down_proj.weight is not")])
def test_weights_of_other_tensors_are_refused_before_the_server_hears_of_them(
    endpoint: Endpoint, copy: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(copy)
    with pytest.raises(UsageError, match=said):
        ensure(endpoint, at(copy), {BASE_FINGERPRINT})
    assert ensure(endpoint, at(BASE))[1].checksums_compared == TENSORS


def test_weights_are_replaced_when_the_server_s_own_folder_is_gone(
    endpoint: Endpoint, trained: Path, tmp_path: Path
) -> None:
    """What tensors the server has is then asked of itself."""
    load(endpoint, Path(shutil.copytree(BASE, tmp_path / "gone")), BASE_FINGERPRINT)
    shutil.rmtree(tmp_path / "gone")
    partial = Path(shutil.copytree(trained, tmp_path / "partial"))
    leave_one_out(partial)
    write_checksums(partial)
    with pytest.raises(UsageError, match="1 tensors are in one only"):
        ensure(endpoint, at(partial), {BASE_FINGERPRINT})
    assert ensure(endpoint, at(trained), {BASE_FINGERPRINT})[1].checksums_compared == TENSORS


def test_a_server_with_a_label_of_its_own_is_accepted_when_its_tensors_are_ours(
    endpoint: Endpoint, trained: Path
) -> None:
    load(endpoint, BASE, "default")
    assert ensure(endpoint, at(BASE)) == (Served("default"), Evidence("default", TENSORS, None))
    with pytest.raises(UsageError, match="serves another model"):
        ensure(endpoint, at(trained))
    fingerprint = LocalModel.resolve(at(trained)).fingerprint
    assert ensure(endpoint, at(trained), {BASE_FINGERPRINT})[0] == Served(fingerprint)


def test_a_version_that_lies_is_found_out(endpoint: Endpoint, trained: Path, tmp_path: Path) -> None:
    load(endpoint, trained, BASE_FINGERPRINT)
    with pytest.raises(QualityGateError, match="another checksum"):
        ensure(endpoint, at(BASE))
    guest = Endpoint(endpoint.url, endpoint.api_key)
    assert ensure(guest, at(BASE)) == (Served(BASE_FINGERPRINT), Evidence(BASE_FINGERPRINT, 0, None))
    with pytest.raises(UsageError, match="admin key"):
        ensure(guest, at(BASE, adapter=str(make_adapter(tmp_path / "adapter"))))


def test_a_server_of_another_dtype_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(UsageError, match="computes in float32"):
        ensure(endpoint, at(BASE, dtype="bfloat16"))


def test_weights_that_only_this_process_can_see_are_named(endpoint: Endpoint, trained: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    for folder, options in ((trained, {}), (adapter, {"adapter": "/proc/self/fd/900"})):
        os.dup2(os.open(folder, os.O_RDONLY), 900)  # a path with another meaning in every process
        model = at(BASE, **options) if options else at(Path("/proc/self/fd/900"))
        with pytest.raises(UsageError, match="cannot see /proc/self/fd/900"):
            ensure(endpoint, model, {BASE_FINGERPRINT})
        os.close(900)
    assert ensure(endpoint, at(BASE))[1].checksums_compared == TENSORS


@pytest.mark.parametrize("train", ["lora", "full"])
def test_whether_weights_of_later_rounds_can_reach_the_server_is_known_before_the_first_sample(
    endpoint: Endpoint, tmp_path: Path, train: Literal["lora", "full"]
) -> None:
    def follows(folder: Path, **options: Any) -> None:
        config = DistillConfig(train=train, **options)
        call(endpoint, partial(require_follows, config=config, folder=folder))

    follows(tmp_path)
    assert not list(tmp_path.iterdir())
    assert ensure(endpoint, at(BASE))[1].checksums_compared == TENSORS
    assert call(endpoint, loaded_adapters) == []
    os.dup2(os.open(tmp_path, os.O_RDONLY), 900)
    with pytest.raises(UsageError, match="cannot see /proc/self/fd/900"):
        follows(Path("/proc/self/fd/900"))
    os.close(900)
    if train == "lora":
        with pytest.raises(UsageError, match="does not take this adapter"):
            follows(tmp_path, lora=LoraConfig(rank=32))


# --- a router in front ----------------------------------------------------------------------------------------------


@pytest.fixture
def router(endpoint: Endpoint, tmp_path: Path) -> Iterator[Endpoint]:
    port, metrics = free_port("127.0.0.1"), free_port("127.0.0.1")
    command = [str(servers.python()), "-m", "sglang_router.launch_router", "--worker-urls", endpoint.url]
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics)]
    command += ["--api-key", str(endpoint.api_key)]
    with (tmp_path / "router.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    front = Endpoint(f"http://127.0.0.1:{port}", endpoint.api_key)
    try:
        servers.until(lambda: answers(front), 60, "the router answers")
        yield front
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(front: Endpoint) -> bool:
    try:
        return bool(call(front, lambda client: client.get("/get_model_info", ModelInfo, timeout_s=5)))
    except (Unreachable, Refused):
        return False


def test_behind_a_router_weights_are_verified_by_version_and_never_changed(
    endpoint: Endpoint, router: Endpoint, trained: Path, tmp_path: Path
) -> None:
    write_canary(at(BASE), copied := Path(shutil.copytree(BASE, tmp_path / "with-canary")))
    served, evidence = ensure(router, at(copied))
    assert served == Served(BASE_FINGERPRINT, routed=True)
    assert evidence.checksums_compared == 0
    assert evidence.canary_difference is not None
    assert evidence.canary_difference < 1e-4
    with pytest.raises(UsageError, match="is a router: its weights cannot be replaced"):
        ensure(router, at(trained), {BASE_FINGERPRINT})
    for config, said in ((DistillConfig(train="full"), "weights"), (DistillConfig(train="lora"), "no adapter")):
        with pytest.raises(UsageError, match=f"is a router: .*{said}"):
            call(router, partial(require_follows, config=config, folder=tmp_path))
    with pytest.raises(UsageError, match="is a router: no adapter can be loaded"):
        ensure(router, at(BASE, adapter=str(make_adapter(tmp_path / "adapter"))))
    load(endpoint, BASE, "default")
    assert ensure(router, at(copied))[0] == Served("default", routed=True)  # its folder lies here, and is the model


def test_a_rollout_goes_through_a_router(router: Endpoint, tmp_path: Path) -> None:
    router.write(tmp_path / "router.json")
    rollouts.run(servers.config(sglang__server_url=str(tmp_path / "router.json")), tmp_path / "routed")
    rollouts.run(overthinker.config(), tmp_path / "plain")
    ours, theirs = (rollouts.rows_of(tmp_path / name) for name in ("routed", "plain"))
    whole = [row["seed"] < 1 << 63 for row in theirs]  # a router leaves out the top bit of the others
    assert [row["prompt_ids"] for row in ours] == [row["prompt_ids"] for row in theirs]
    same = [one["completion_ids"] == other["completion_ids"] for one, other in zip(ours, theirs, strict=True)]
    assert all(equal for equal, kept in zip(same, whole, strict=True) if kept)
    assert 0 < sum(whole) < len(ours) == 40


# --- adapters -------------------------------------------------------------------------------------------------------


def test_an_adapter_is_loaded_verified_and_swapped_for_the_next(endpoint: Endpoint, tmp_path: Path) -> None:
    names = []
    for number in range(2):
        adapter = make_adapter(tmp_path / f"adapter-{number}", seed=number)
        for _ in range(2):  # the second time it is there already
            served, evidence = ensure(endpoint, at(BASE, adapter=str(adapter)))
            assert evidence.canary_difference is not None
            assert evidence.canary_difference < 1e-4
            assert call(endpoint, loaded_adapters) == [served.adapter]
        names.append(served.adapter)
    assert len(set(names)) == 2
    moved = Path(shutil.copytree(tmp_path / "adapter-1", tmp_path / "moved"))
    assert ensure(endpoint, at(BASE, adapter=str(moved)))[0].adapter == names[1]


def test_an_adapter_stays_right_when_the_base_is_replaced(endpoint: Endpoint, trained: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", trained)
    _, evidence = ensure(endpoint, at(trained, adapter=str(adapter)), {BASE_FINGERPRINT})
    assert evidence.checksums_compared == TENSORS
    assert evidence.canary_difference is not None
    assert evidence.canary_difference < 1e-4


def test_a_canary_of_another_adapter_is_found_out(endpoint: Endpoint, tmp_path: Path) -> None:
    adapter, other = make_adapter(tmp_path / "adapter"), make_adapter(tmp_path / "other", seed=1)
    paths = read_record(other / "vpgea_canary.json", Canary).paths
    served, _ = ensure(endpoint, at(BASE, adapter=str(adapter)))
    vocabulary = json.loads((BASE / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert call(endpoint, lambda client: canary_difference(client, served, paths, vocabulary)) > 0.1
    shutil.copy(other / "vpgea_canary.json", adapter)
    with pytest.raises(QualityGateError, match=r"differ by \d.*, 0.001 is allowed"):
        ensure(endpoint, at(BASE, adapter=str(adapter)))


def test_an_adapter_that_is_not_applied_is_found_out(endpoint: Endpoint, tmp_path: Path) -> None:
    """Something without any effect is loaded under its name."""
    adapter, idle = make_adapter(tmp_path / "adapter", seed=2), make_adapter(tmp_path / "idle", std=0.0)
    (adapter / "vpgea_canary.json").unlink()
    name = ensure(endpoint, at(BASE, adapter=str(adapter)))[0].adapter
    post(endpoint, "/unload_lora_adapter", lora_name=name)
    post(endpoint, "/load_lora_adapter", lora_name=name, lora_path=str(idle))
    with pytest.raises(QualityGateError, match="does not apply the adapter"):
        ensure(endpoint, at(BASE, adapter=str(adapter)))
    assert ensure(endpoint, at(BASE, adapter=str(idle)))[1].canary_difference is not None  # a new one has no effect


def test_adapters_that_do_not_fit_are_refused_before_any_call(endpoint: Endpoint, tmp_path: Path) -> None:
    other = make_adapter(tmp_path / "other", tiny.make_model(tmp_path / "model"))
    scaled = make_adapter(tmp_path / "scaled", use_rslora=True)
    lonely = make_adapter(tmp_path / "lonely", target_modules=["v_proj", "o_proj"])
    large = make_adapter(tmp_path / "large", r=32)
    for adapter, said in (
        (other, "is not of the model"),
        (scaled, "use_rslora"),
        (lonely, "v_proj and not its neighbours"),
        (large, "its rank is 32, and the server has room for 16"),
    ):
        with pytest.raises(UsageError, match=said):
            ensure(endpoint, at(BASE, adapter=str(adapter)))
    assert not {served for served in call(endpoint, loaded_adapters) if "vpgea" not in served}


# --- another architecture, another dtype, no adapters ----------------------------------------------------------------


def test_fused_biased_untied_tensors_in_bfloat16_and_a_server_without_adapters(tmp_path: Path) -> None:
    """A Qwen2 with grouped heads, biases and an output layer of its own, stored in float32 and served in bfloat16."""
    model = tiny.make_model(tmp_path / "model", train_steps=20)
    fields = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(fields | {"max_position_embeddings": 4096}), encoding="utf-8")
    write_canary(at(model, dtype="bfloat16"), model)
    chosen = {"model__path": str(model), "model__dtype": "bfloat16", "distill__train": "full"}
    with servers.serving(tmp_path / "server", **chosen) as process:
        served, evidence = ensure(process.endpoint, at(model, dtype="bfloat16"))
        assert served == Served(LocalModel.resolve(at(model)).fingerprint)
        assert evidence.checksums_compared == 17
        assert evidence.canary_difference is not None
        assert evidence.canary_difference < 0.5
        adapter = make_adapter(tmp_path / "adapter", model)
        with pytest.raises(UsageError, match="LoRA is not enabled"):
            ensure(process.endpoint, at(model, adapter=str(adapter)))

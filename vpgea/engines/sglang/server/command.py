"""How a server is started: its options, its environment, its port, and the options that are not the user's to set.

Options, keys among them, go into a configuration file, since everyone on a machine can read command lines.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.config.devices import Devices
from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.engines.sglang.server.installation import (
    CPU_RECIPE,
    find_python,
    installed_versions,
    isolated_environment,
    recipe,
)
from vpgea.engines.sglang.server.places import ANYWHERE, Place
from vpgea.engines.sglang.traffic.endpoints import Endpoint
from vpgea.errors import UsageError
from vpgea.modeling.adapter_files import adapter_rank
from vpgea.modeling.device import visible_gpus
from vpgea.modeling.local_model import LocalModel

_OWN_OPTIONS = {  # what the server's user relies on, and the way to set it
    "--host": "--host of `vpgea serve`",
    "--port": "--port of `vpgea serve`",
    "--api-key": "nothing: vpgea makes it, `vpgea serve` writes it into server.json",
    "--admin-api-key": "nothing: vpgea makes it, `vpgea serve` writes it into server.json",
    "--model-path": "--model",
    "--weight-version": "nothing: it is the model's fingerprint",
    "--config": "options on the command line, or --config for vpgea's own file",
    "--ssl-certfile": "a proxy in front of the server",
    "--ssl-keyfile": "a proxy in front of the server",
}
_FOREIGN_VARIABLES = re.compile(  # a launcher's ranks, secrets and settings that a server of local files has no use for
    r"VPGEA_.*|TORCHELASTIC_.*|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(HTTPS?|ALL)_PROXY"
    r"|SGLANG_(USE_CPU_ENGINE|PORT|GRPC_PORT)|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|WANDB_API_KEY",
    re.IGNORECASE,
)
_FIRST_PORT = 20000
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_POOL_SHARE, _POOL_BYTES = 4, 4 << 30  # the KV pool on a CPU: at most a quarter of the free memory, and 4 GiB
_POOL_SEQUENCES = 256  # nor more than for so many of the longest: it is filled with zeros at the start
_KEPT_POSITIONS = 8  # SGLang keeps up to seven of its context's for itself; the model's own shall all be usable
_SEED_LIMIT = 1 << 32  # of numpy's generator


@dataclass(frozen=True)
class Launch:
    """A server that can be started. `options` is for its configuration file; `endpoint` is where it will answer."""

    command: list[str]
    options: dict[str, Any]
    environment: dict[str, str]
    endpoint: Endpoint

    @property
    def secrets(self) -> list[str]:
        return [key for key in (self.endpoint.api_key, self.endpoint.admin_key) if key]


def plan_launch(config: RunConfig, *, host: str, port: int, place: Place = ANYWHERE) -> Launch:
    """Everything for one server of the run's model.

    Raises:
        UsageError: It could not work.
    """
    refuse_own_options(config.sglang.options)
    python = find_python(config.sglang)
    on_gpu = _on_gpu(config.model, python)
    endpoint = Endpoint(_url(host, port), api_key=secrets.token_hex(32), admin_key=secrets.token_hex(32))
    options = {
        "host": host,
        "port": port,
        "api-key": endpoint.api_key,
        "admin-api-key": endpoint.admin_key,
        **model_options(config, on_gpu=on_gpu, servers=place.servers),
    }
    targets = ["--lora-target-modules", "all"] if "enable-lora" in options else []  # a list: not for the file
    command = [str(python), "-m", "sglang.launch_server", *targets, *config.sglang.options]
    return Launch(command, options, server_environment(config.model, on_gpu=on_gpu, place=place), endpoint)


def refuse_own_options(options: Sequence[str]) -> None:
    """Raise UsageError for an option that vpgea sets itself. The server takes every unique beginning of a name too."""
    for option in options:
        name = option.partition("=")[0].replace("_", "-")
        own = next((one for one in _OWN_OPTIONS if len(name) > 2 and one.startswith(name)), None)
        if own:
            raise UsageError(
                f"{name} cannot be given to the server",
                why=f"vpgea sets {own} itself and relies on it",
                mend=f"leave it out and use {_OWN_OPTIONS[own]}",
            )


def model_options(config: RunConfig, *, on_gpu: bool, servers: int = 1) -> dict[str, Any]:
    """What follows from the model and its device. servers: that share the machine's memory."""
    asked, model = config.model, LocalModel.resolve(config.model)
    dtype = asked.dtype if asked.dtype != "auto" else "bfloat16" if on_gpu else "float32"
    options: dict[str, Any] = {
        "model-path": str(model.folder),
        "weight-version": model.base.fingerprint,
        "trust-remote-code": asked.trust_remote_code,
        "dtype": dtype,
        "random-seed": config.rollout.seed % _SEED_LIMIT,
        "skip-tokenizer-init": True,  # prompts and responses are token ids
        "log-level": "info",
        "log-level-http": "warning",  # a line per request costs time
    }
    if limit := model.context_length:
        options["context-length"] = limit + _KEPT_POSITIONS
    if ranks := _lora_ranks(config, model.adapter):
        options |= {"enable-lora": True, "max-lora-rank": max(ranks)}
    if not on_gpu:
        pool = _pool_tokens(config, model, dtype, servers)
        options |= {"device": "cpu", "sleep-on-idle": True, "max-total-tokens": pool}
        options |= {"lora-backend": "torch_native"} if ranks else {}
    elif ":" in asked.device:
        options["base-gpu-id"] = int(asked.device.partition(":")[2])
    return options


def server_environment(model: ModelConfig, *, on_gpu: bool, place: Place = ANYWHERE) -> dict[str, str]:
    """This process's environment without what the server trips over or need not know."""
    kept = {name: value for name, value in isolated_environment().items() if not _FOREIGN_VARIABLES.fullmatch(name)}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    environment["SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"] = "1"  # by _KEPT_POSITIONS, which no sequence reaches
    if on_gpu and place.devices:
        environment["CUDA_VISIBLE_DEVICES"] = visible_gpus(place.devices)
    if not on_gpu:
        cores = len(os.sched_getaffinity(0)) // 2  # the other half: all the rest
        threads = model.threads or kept.get("OMP_NUM_THREADS") or max(cores // place.servers, 1)
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def require_free(host: str, port: int) -> None:
    """Raise UsageError when nothing can listen there."""
    try:
        _try_to_listen(host, port)
    except OSError as error:
        raise UsageError(
            f"no server can listen on {host}, port {port}",
            why=(error.strerror or str(error)).lower(),
            mend="choose another --port or --host, or leave --port out: a free port is taken",
        ) from error


def free_port(host: str) -> int:
    """A port that is free now. It lies below those that the system hands out to whoever asks for any, since a server
    takes it only when its model is loaded."""
    beyond = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for port in random.SystemRandom().sample(range(min(_FIRST_PORT, beyond // 2), beyond), 64):
        try:
            _try_to_listen(host, port)
        except OSError:
            continue
        return port
    require_free(host, 0)
    raise UsageError(f"no free port on {host}", why="64 ports were tried", mend="name one with --port")


def _try_to_listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        probe.bind(address)
        probe.listen()


def _url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on `host`."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what the user asked to listen on
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _on_gpu(model: ModelConfig, python: Path) -> bool:
    """The device of vpgea's own models too: `auto` is the GPU where there is one.

    Raises:
        UsageError: SGLang is not installed there, or not for that device.
    """
    found = installed_versions(python)
    if found["sglang"] is None:
        mend = f"{recipe()}; or name another Python with sglang.python"
        raise UsageError(f"no SGLang in {python}", why="its environment has no package sglang", mend=mend)
    asked = Devices.parse(model.devices).kind if model.device == "auto" else model.device
    on_gpu = found["gpu"] if asked == "auto" else asked.startswith("cuda")
    if not on_gpu and not found["cpu_plugin"]:
        raise UsageError(
            f"SGLang in {python} cannot run on a CPU",
            why="SGLang as it is published needs a GPU; the platform for plain CPUs is not in that environment",
            mend=f"{CPU_RECIPE}; or use the transformers engine: --set rollout.engine=transformers",
        )
    return on_gpu


def _lora_ranks(config: RunConfig, adapter: Path | None) -> list[int]:
    """Ranks of the adapters that the run can bring: the one given, and those to be trained."""
    given = [adapter_rank(adapter)] if adapter else []
    return given + ([config.distill.lora.rank] if config.distill.train == "lora" else [])


def _pool_tokens(config: RunConfig, model: LocalModel, dtype: str, servers: int) -> int:
    """Tokens of the KV pool on a CPU, where a server would take most of the memory by itself."""
    import psutil

    from vpgea.modeling.shape import read_shape

    per_token = read_shape(model).kv_bytes_per_token(_DTYPE_BYTES[dtype])
    free = psutil.virtual_memory().available // servers
    longest = min(_longest(config), model.context_length or sys.maxsize)
    if longest * per_token > (budget := _pool_bytes(free)):
        raise UsageError(
            f"no room for one sequence of {longest} tokens in the memory",
            why=f"its keys and values take {longest * per_token >> 20} MiB; {budget >> 20} MiB may be used for them",
            mend="lower max_new_tokens or views.max_prompt_tokens, or use a machine with more memory",
        )
    return cpu_pool_tokens(config, per_token, free, longest)


def cpu_pool_tokens(config: RunConfig, per_token: int, free: int, longest: int | None = None) -> int:
    """Tokens of the KV pool of a server on a CPU.

    Args:
        config: Of the run.
        per_token: Bytes of keys and values of a token.
        free: Bytes of memory, its share of them where several servers have it.
        longest: Tokens of the longest sequence; None: as the caps have it.
    """
    sequences = min(config.sglang.max_concurrency, _POOL_SEQUENCES)
    return min(_pool_bytes(free) // per_token, ((longest or _longest(config)) + _KEPT_POSITIONS) * sequences)


def _pool_bytes(free: int) -> int:
    return min(free // _POOL_SHARE, _POOL_BYTES)


def _longest(config: RunConfig) -> int:
    """Tokens of the longest sequence that the caps allow."""
    return config.views.max_prompt_tokens + max(config.rollout.max_new_tokens, config.eval.max_new_tokens) + 1

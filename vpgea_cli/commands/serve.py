"""`vpgea serve`: one SGLang server for other commands, on this machine or on others."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vpgea.errors import Stopped, UsageError
from vpgea.runs.stopping import StopRequest
from vpgea_cli.options import (
    AdapterOption,
    ConfigOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutputDirOption,
    QuietOption,
    SeedOption,
    ServerOptionsArgument,
    ServerPythonOption,
    SetOption,
    VerboseOption,
    resolve_options,
    server_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required, running

_LOOK_S = 0.5


def command(
    *,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = None,
    output_dir: OutputDirOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others than this machine's own need both keys.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port; else a free one.")] = None,
    sglang_python: ServerPythonOption = None,
    seed: SeedOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    options: ServerOptionsArgument = None,
) -> None:
    """Start an SGLang server for a model, print its URL, and keep it until Ctrl-C."""
    resolved = resolve_options(
        {
            "model.path": model,
            "model.adapter": adapter,
            "model.dtype": dtype,
            "rollout.seed": seed,
            **server_options(None, sglang_python, options),
        },
        config=config,
        sets=sets,
    )
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    with running(output, offline=offline) as stop:
        from vpgea.engines.sglang.server.process import ServerProcess
        from vpgea.engines.sglang.traffic.endpoints import is_loopback

        folder = required(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (
            _alone(folder) as keys_file,
            closing(
                ServerProcess.start(resolved.config, folder, host=host, port=port, process_groups=stop.process_groups)
            ) as server,
        ):
            output.info(f"starting the server; its log is {server.log}")
            server.wait_ready(lambda: _check(stop))
            endpoint = server.endpoint
            if host in ("0.0.0.0", "::"):  # noqa: S104 - the user's choice
                endpoint = replace(endpoint, url=f"http://{_own_name()}:{endpoint.url.rpartition(':')[2]}")
            endpoint.write(keys_file)
            if not is_loopback(host):
                output.info(f"other machines can reach it: it asks for its two keys, which are in {keys_file}")
            fields = {"url": endpoint.url, "keys_file": keys_file.absolute(), "pid": server.pid}
            output.result(fields if as_json else endpoint.url)
            while True:
                _check(stop)
                server.require_alive()
                time.sleep(_LOOK_S)


def _own_name() -> str:
    """This machine's name for others; a hosts file may call every machine localhost."""
    full = socket.getfqdn()
    return socket.gethostname() if full.startswith("localhost") else full


def _check(stop: StopRequest) -> None:
    if stop.requested:
        raise Stopped(
            f"stopped by {stop.cause}",
            why="a server runs until it is told to end",
            mend="run the same command again for a new one",
            exit_code=stop.exit_code,
        )


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The path of the file with the keys; one server per folder, and none leaves its file behind."""
    lock = os.open(folder / ".serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{folder} is in use",
                why="another `vpgea serve` keeps its keys there",
                mend="give another --output-dir, or stop that one",
            ) from error
        keys_file = folder / "server.json"
        keys_file.unlink(missing_ok=True)  # of a server that was killed
        try:
            yield keys_file
        finally:
            keys_file.unlink(missing_ok=True)
    finally:
        os.close(lock)

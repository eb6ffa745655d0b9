"""What servers answer, as far as it is read: a class for each call, held against the bytes before anything uses them.

A server may be another version, somebody else's, or a proxy with a page of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vpgea.errors import EngineError

Count = Annotated[int, Field(ge=0)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Entry = tuple[float | None, TokenId, Any]  # log-probability, id, text


class Answer(BaseModel):
    """A JSON object; fields that nobody reads are passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())


A = TypeVar("A", bound=Answer)


class Finish(Answer):
    """Why a completion ended."""

    type: str
    message: Any = None


class Span(Answer):
    """Weights that a part of a completion came from."""

    version: str | None = None


class Meta(Answer):
    """What stands beside the ids of /generate."""

    finish_reason: Finish | None = None
    weight_version: str | None = None
    weight_versions: list[Span] | None = None
    cached_tokens: Count | None = None
    output_token_logprobs: list[Entry] | None = None
    input_token_logprobs: list[Entry] | None = None
    input_top_logprobs: list[list[Entry] | None] | None = None


class Generated(Answer):
    """/generate."""

    meta_info: Meta
    output_ids: list[TokenId] | None = None


class Load(Answer):
    """One rank's load. Everything that it says is kept: whether anything changes tells whether the rank works."""

    model_config = ConfigDict(extra="allow")

    num_running_reqs: Count
    num_waiting_reqs: Count
    max_running_requests: Count
    token_usage: float
    max_total_num_tokens: Count


class Loads(Answer):
    """/v1/loads."""

    version: str
    loads: Annotated[list[Load], Field(min_length=1)]


class Model(Answer):
    """A model or an adapter of a server."""

    id: str
    parent: Any = None
    max_model_len: Annotated[int, Field(ge=1)] | None = None


class Models(Answer):
    """/v1/models."""

    data: Annotated[list[Model], Field(min_length=1)]


class ModelInfo(Answer):
    """/model_info."""

    weight_version: str | None = None
    model_path: str | None = None
    architectures: list[str] | None = None


class ServerInfo(Answer):
    """/server_info: the options that a server was started with, all of them."""

    model_config = ConfigDict(extra="allow")

    max_lora_rank: Count | None = None
    dp_size: Count | None = None
    tp_size: Count | None = None
    pp_size: Count | None = None


class RankChecksums(Answer):
    """Name of a tensor → checksum."""

    checksums: dict[str, str]


class Checksums(Answer):
    """/weights_checker."""

    ranks: list[RankChecksums]


class Words(Answer):
    """A call whose answer is not read: that it was taken is all."""


def read_answer(kind: type[A], text: bytes, url: str, path: str) -> A:
    """What a server answered to a call.

    Raises:
        EngineError: It is not what the call answers.
    """
    if kind is Words:
        return kind()
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise malformed(url, path, f"{where}: {first['msg']}" if where else first["msg"]) from None


def malformed(url: str, path: str, why: str) -> EngineError:
    """The error for an answer that cannot be one."""
    return EngineError(
        f"{url} answers {path} as no SGLang server does",
        why=why,
        mend="check the URL, and compare the server's SGLang with the tested version (`vpgea doctor`)",
    )

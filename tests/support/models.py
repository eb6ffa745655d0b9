"""What a configuration's model gives, for tests that have only the configuration."""

from __future__ import annotations

from typing import Any

from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import Views, load_views
from vpgea.training.roles import Roles


def causal_model(config: ModelConfig) -> Any:
    return load_model(LocalModel.resolve(config))


def fingerprint(config: ModelConfig) -> str:
    return LocalModel.resolve(config).fingerprint


def views_of(config: RunConfig) -> Views:
    return load_views(LocalModel.resolve(config.model), config.views, config.grading.grader)


def roles_of(config: RunConfig) -> Roles:
    return Roles(config, LocalModel.resolve(config.model))

"""The context that a configuration states, and what stretches it."""

from __future__ import annotations

from typing import Any

import pytest

from vpgea.modeling.context import context_length

YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128}
LONG = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 128, "rope_parameters": YARN}, 1024),
        ({"max_position_embeddings": 1024, "rope_parameters": YARN}, 1024),
        ({"max_position_embeddings": 160, "rope_scaling": YARN}, 1024),
        ({"max_position_embeddings": 128, "rope_scaling": {"type": "yarn", "factor": 2.0}}, 256),
        ({"max_position_embeddings": 128, "rope_scaling": {"type": "linear", "factor": 4}}, 512),
        ({"max_position_embeddings": 128, "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 128),
        ({"max_position_embeddings": 128, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 128),
        ({"max_position_embeddings": 128, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, 128),
        (
            {"max_position_embeddings": 4096, "original_max_position_embeddings": 32, "rope_parameters": LONG},
            32,
        ),
        ({"max_position_embeddings": 128, "rope_parameters": {"full_attention": YARN, "sliding_attention": YARN}}, 128),
    ],
)
def test_the_context_is_what_the_positions_hold(fields: dict[str, Any], expected: int | None) -> None:
    assert context_length(fields) == expected

"""`--set` texts and environment variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Probe, odd_scalars, odd_texts
from vpgea.config.problems import FIELDS, SECTIONS
from vpgea.config.resolve import dump_yaml, loads, resolve


class Settings(NamedTuple):
    """What was typed, and the environment."""

    sets: list[str]
    env: dict[str, str]


_YAML = [
    "[",
    "[a, b]",
    "{a: 1}",
    "{a: [b]}",
    "&a [*a]",
    "!!int x",
    "!!set {a}",
    "a: b",
    "'",
    '"\\',
    "? a",
    "- a",
    "|",
    "#",
]
_keys = st.one_of(
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from(sorted(SECTIONS)),
    st.builds("views.chat_template_kwargs.{}".format, odd_texts),
    st.builds("{}{}".format, st.sampled_from(sorted(FIELDS)), odd_texts),
    odd_texts,
)
_values = st.one_of(
    odd_texts,
    odd_scalars.map(str),
    st.integers(0, 5).map(str),
    st.sampled_from(_YAML),
)
_sets = st.builds("{}{}{}".format, _keys, st.sampled_from(["=", "=", "=", " = ", "==", ""]), _values)
_names = st.builds(
    "VPGEA_{}".format,
    st.one_of(st.sampled_from(sorted(FIELDS)).map(lambda key: key.upper().replace(".", "__")), odd_texts),
)
_settings = st.builds(Settings, st.lists(_sets, max_size=3), st.dictionaries(_names, _values, max_size=2))


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """Both layers at once; what is accepted survives being written and read again."""

    def check(settings: Settings) -> str:
        config = resolve(sets=settings.sets, env=settings.env).config
        assert loads(dump_yaml(config)) == config, "it does not survive being written"
        return ACCEPTED

    yield Probe(_settings, check)

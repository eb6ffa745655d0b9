"""Layers, origins, and what is said about mistakes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.config.experimental import experimental, experimental_choices, meaning
from vpgea.config.problems import expected
from vpgea.config.resolve import PATH_KEYS, dump_yaml, load, loads, resolve
from vpgea.config.schema import RunConfig, leaves, value_of
from vpgea.config.strict_yaml import parse, scalar
from vpgea.errors import UsageError

KEY = "rollout.temperature"
DOCS = Path(__file__).parents[3] / "docs"


def test_each_layer_beats_those_below_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("rollout: {temperature: 0.3}\n")
    layers: list[tuple[dict[str, Any], float, str]] = [
        ({}, 1.0, "default"),
        ({"inherited": [("rollout folder a", {KEY: 0.1})]}, 0.1, "rollout folder a"),
        ({"inherited": [("rollout folder a", {KEY: 0.1}), ("filter folder b", {KEY: 0.2})]}, 0.2, "filter folder b"),
        ({"file": file}, 0.3, f"{file}:1"),
        ({"env": {"VPGEA_ROLLOUT__TEMPERATURE": "0.4"}}, 0.4, "environment VPGEA_ROLLOUT__TEMPERATURE"),
        ({"sets": ["rollout.temperature=0.9", "rollout.temperature=0.5"]}, 0.5, "--set"),
        ({"options": {KEY: 0.6}}, 0.6, "option"),
    ]
    arguments: dict[str, Any] = {}
    for added, value, origin in layers:
        arguments |= added
        resolved = resolve(**arguments)
        assert (resolved.config.rollout.temperature, resolved.origins[KEY]) == (value, origin)
    assert resolved.origins["rollout.top_p"] == "default"
    assert set(resolved.origins) == {key for key, _ in leaves()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model.path=123", "123"),
        ("model.path=no", "no"),
        ("model.path=null", "null"),
        ("model.path=a=b", "a=b"),
        ("model.revision=null", None),
        ("model.revision=1e5", "1e5"),
        ("distill.learning_rate=1e-5", 1e-5),
        ("distill.learning_rate=1", 1.0),
        ("rollout.seed=010", 10),
        ("data.limit=null", None),
        ("filter.early_exits=true", True),
        ("distill.lora.targets=[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("distill.train=full", "full"),
        ("views.chat_template_kwargs={enable_thinking: false}", {"enable_thinking": False}),
    ],
)
def test_typed_in_text_is_read_by_the_type_of_the_field(text: str, value: object) -> None:
    key = text.partition("=")[0]
    name = "VPGEA_" + key.upper().replace(".", "__")
    for resolved in (resolve(sets=[text]), resolve(env={name: text.partition("=")[2]})):
        found = value_of(resolved.config, key)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "rollout.temperature=hot",
        "rollout.temperature=-1",
        "rollout.temperature=.inf",
        "rollout.temperature=.nan",
        "rollout.temperature=true",
        "rollout.temperature=",
        "rollout.seed=1.5",
        "rollout.seed=[1",
        "filter.early_exits=yes",
        "filter.early_exits=1",
        "distill.train=all",
        "distill.adam_betas=[0.9]",
        "distill.adam_betas=[0.9, .nan]",
        "views.chat_template_kwargs={a: [1]}",
        "loop.max_accuracy_drop=2",
    ],
)
def test_wrong_values_name_key_value_origin_and_what_is_expected(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(sets=[text])
    key = text.partition("=")[0]
    assert caught.value.what.startswith(f"{key} cannot be ")
    assert "it came from --set" in caught.value.why
    assert caught.value.mend.endswith(f"give {expected(key)}")


def test_what_a_field_takes_is_said_with_the_limits_within_it() -> None:
    assert expected("loop.max_accuracy_drop").startswith("a number, >= 0, <= 1 or null (")


def test_entries_of_a_mapping_can_be_set_one_by_one() -> None:
    inherited = [("folder", {"views.chat_template_kwargs": {"a": 1, "b": 2}})]
    env = {"VPGEA_VIEWS__CHAT_TEMPLATE_KWARGS__ENABLE_THINKING": "false"}
    resolved = resolve(inherited=inherited, env=env, sets=["views.chat_template_kwargs.b=x"])
    assert resolved.config.views.chat_template_kwargs == {"a": 1, "b": "x", "enable_thinking": False}
    assert resolve().config.views.chat_template_kwargs == {}  # the default itself was not changed


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("rolout.temperature", "rollout.temperature"),
        ("rollout.temprature", "rollout.temperature"),
        ("max_grad_norm", "distill.max_grad_norm"),
        ("filter.rank", "distill.lora.rank"),
        ("distil", "distill"),
        ("views.chat_template_kwargs.", "views.chat_template_kwargs"),
    ],
)
def test_unknown_keys_suggest_the_nearest(key: str, suggestion: str) -> None:
    for arguments in ({"sets": [f"{key}=1"]}, {"inherited": [("rollout folder x", {key: 1})]}):
        with pytest.raises(UsageError, match="unknown configuration key") as caught:
            resolve(**arguments)
        assert caught.value.mend.startswith(f"did you mean {suggestion}? ")


def test_unknown_keys_stay_an_error_when_a_higher_layer_is_right(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("rollout:\n  seed: 1\n  sead: 1\n")
    with pytest.raises(UsageError, match=r"unknown configuration key rollout\.sead") as caught:
        resolve(file=file, options={"rollout.seed": 2})
    assert f"{file}:3" in caught.value.why


def test_errors_stay_short() -> None:
    doubling = ["[&a0 [x, x]"] + [f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    for value in ("x" * 10**5, ", ".join(doubling) + "]"):
        with pytest.raises(UsageError, match=r"rollout\.seed cannot be") as caught:
            resolve(sets=[f"rollout.seed={value}"])
        assert len(caught.value.what) < 400


def test_reserved_and_foreign_variables_are_not_keys() -> None:
    env = {"VPGEA_DEBUG": "1", "VPGEA_TEST_DATA": "/x", "PATH": "/bin", "ROLLOUT__SEED": "5"}
    assert resolve(env=env).config == RunConfig()


def test_what_a_site_names_after_the_tool_is_passed_over_and_named() -> None:
    env = dict.fromkeys(("VPGEA_VERSION", "VPGEA_HOME", "VPGEA_MODULE_PATH", "VPGEA_ROOT"), "/opt/vpgea")
    resolved = resolve(env={**env, "VPGEA_ROLLOUT__SEED": "5"})
    assert resolved.config.rollout.seed == 5
    assert resolved.passed_over == ("VPGEA_HOME", "VPGEA_MODULE_PATH", "VPGEA_ROOT", "VPGEA_VERSION")


@pytest.mark.parametrize(
    "name", ["VPGEA_ROLLOUT_SEED", "VPGEA_ROLOUT__SEED", "VPGEA_MODEL", "VPGEA_DEBG", "VPGEA_TESTDATA"]
)
def test_a_variable_that_is_meant_as_a_key_is_not_passed_over(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"unknown environment variable {name}|{name.removeprefix('VPGEA_').lower()} is a section"
    ):
        resolve(env={name: "1"})


def test_a_set_without_a_value_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"--set rollout\.seed"):
        resolve(sets=["rollout.seed"])


def test_values_that_do_not_fit_together_name_their_origins() -> None:
    with pytest.raises(UsageError, match=r"filter\.utility does not fit together") as caught:
        resolve(sets=["filter.utility.kind=linear"], env={"VPGEA_FILTER__UTILITY__LENGTH_PRICE": "0.5"})
    assert "length_price * c_max must stay below 1" in caught.value.why
    assert "filter.utility.kind from --set" in caught.value.mend
    assert "environment VPGEA_FILTER__UTILITY__LENGTH_PRICE" in caught.value.mend


@pytest.mark.parametrize("key", PATH_KEYS)
def test_paths_are_relative_to_the_file_where_something_is_there(tmp_path: Path, key: str) -> None:
    (tmp_path / "here").mkdir()
    section, name = key.split(".")
    for written, found in (("here", str(tmp_path / "here")), ("elsewhere", "elsewhere"), ("/", "/"), ("x\0y", "x\0y")):
        file = tmp_path / "run.yaml"
        file.write_text(f"{section}: {{{name}: {scalar(written)}}}")
        assert value_of(resolve(file=file).config, key) == found
        assert value_of(load(file), key) == written
        assert value_of(resolve(sets=[f"{key}={written}"]).config, key) == written


def test_a_key_in_nested_and_dotted_form_stands_twice(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("rollout.seed: 1\n")
    assert resolve(file=file).config.rollout.seed == 1
    file.write_text("rollout.seed: 1\nrollout: {seed: 2}\n")
    with pytest.raises(UsageError, match=r"rollout\.seed stands twice"):
        resolve(file=file)


def test_empty_files_and_sections_are_defaults() -> None:
    for text in ("", "# nothing\n", "rollout:\n", "{}", "filter: {utility: }"):
        assert loads(text) == RunConfig()


_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@given(path=_TEXT, phrases=st.lists(_TEXT, max_size=3), alpha=st.floats(1e-300, 1e300), key=_TEXT, revision=_TEXT)
def test_a_dump_loads_equal(path: str, phrases: list[str], alpha: float, key: str, revision: str) -> None:
    options = {
        "model.path": path,
        "model.revision": revision,
        "filter.leaks.phrases": phrases,
        "distill.lora.alpha": alpha,
        "views.chat_template_kwargs": {key: True, "n": 3},
    }
    config = resolve(options=options).config
    assert loads(dump_yaml(config)) == config


def test_a_dump_says_what_every_key_means() -> None:
    lines = [line.strip() for line in dump_yaml(RunConfig()).splitlines()]
    described = [(line.partition(":")[0], line.partition("  # ")[2]) for line in lines if ": " in line and "# " in line]
    fields = [(key.rpartition(".")[2], meaning(field)) for key, field in leaves()]
    assert [pair for pair in described if pair in fields] == fields


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x1f", 31),
        ("0o17", 15),
        ("-.5", -0.5),
        ("~", None),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}", "text")[0]["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2",
        "a: !!python/name:os.system",
        "a: \0",
        "{[1]: 2}",
        "a: *b",
        "[" * 5000,
        "a: @",
        "a: !!bool maybe",
        "a: !!float ''",
        "a: !!timestamp 2020-01-01",
        "a: 0o" + "7" * 5000,  # Python could not write it down again
    ],
    ids=lambda text: text[:20],
)
def test_what_is_not_plain_yaml_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^name.*: not readable as YAML"):
        parse(text, "name")


@pytest.mark.parametrize(("text", "value"), [("!!bool True", True), ("!!str 1", "1"), ("!!int 0x1f", 31)])
def test_tags_of_yaml_1_2_may_be_written_out(text: str, value: object) -> None:
    assert parse(text, "text")[0] == value


def test_the_docs_list_what_is_experimental() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    marked = [(key, experimental(field)) for key, field in leaves() if experimental(field)]
    assert [(key, what.replace("`", "")) for key, what in listed] == marked


def test_the_reference_and_errors_name_what_is_experimental() -> None:
    lines = dump_yaml(RunConfig()).splitlines()
    assert any(line.strip().startswith("optimizer:") and line.endswith("(experimental: adafactor)") for line in lines)
    assert any(line.strip().startswith("mask_truncated:") and line.endswith("(experimental)") for line in lines)
    assert "(experimental: joint)" in expected("filter.advantage.group")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("filter.utility.kind=sigmoid", ["filter.utility.kind=sigmoid"]),
        ("distill.kl_clip=2", ["distill.kl_clip=2.0"]),
        ("distill.teacher=current", []),
        ("distill.optimizer=adamw", []),
    ],
)
def test_only_what_is_chosen_counts_as_experimental(text: str, chosen: list[str]) -> None:
    assert experimental_choices(resolve(sets=[text]).config) == chosen


def test_examples_in_the_docs_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        loads(block)

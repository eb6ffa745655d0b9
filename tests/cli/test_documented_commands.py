"""The shell blocks of README, docs and examples are run as they stand, page by page, in one folder that they share.

The names that the pages use (MODEL, questions.jsonl, FOLDER, ...) are files of the testbed there, small enough for a
minute in all; a command that an earlier page ran is not run again. A block that is not run says why in a comment before
it, or which test does it; tests/unit/docs/test_pages.py holds that this test is there.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.tools.pages import ROOT, ShellBlock, pages, shell_blocks
from tests.support.forks import Forks
from tests.support.overthinker import ROOT as EXAMPLE
from vpgea_cli import main

SMALL = {
    "VPGEA_MODEL__DEVICE": "cpu",
    "VPGEA_VIEWS__TEMPLATE": str(EXAMPLE / "template.yaml"),
    "VPGEA_ROLLOUT__MAX_NEW_TOKENS": "96",
    "VPGEA_GRADING__GRADER": "exact",
    "VPGEA_FILTER__ANSWERABILITY__MAX_NEW_TOKENS": "16",
    "VPGEA_EVAL__MAX_NEW_TOKENS": "96",
    "VPGEA_LOOP__EVAL_DATASET": "dev.jsonl",
}
SMALLER = {  # what is added to a command that would take minutes
    ("vpgea", "loop"): ["--rounds", "1", "--questions-per-round", "8"],
    ("python", "-m", "examples.overthinker.measure"): ["--limit", "5"],
}
MODULE = "import runpy, sys; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
BLOCKS = [block for page in pages() for block in shell_blocks(page)]
RUNNABLE = list(dict.fromkeys(block.page for block in BLOCKS if not block.mark))


class Workshop:
    """The folder in which the commands run, and those that have run there."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.forks, self.done = forks, set[tuple[str, ...]]()
        (folder / "MODEL").symlink_to(EXAMPLE / "base-local")
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "FOLDER").symlink_to("runs/one/rollout")
        sources = {"questions": "train", "train": "train", "dev": "dev", "held_out": "dev", "test": "test"}
        for name, source in sources.items():
            lines = (EXAMPLE / "questions" / f"{source}.jsonl").read_text(encoding="utf-8").splitlines()[:8]
            rows = [{**json.loads(line), "id": f"q{10 + index}"} for index, line in enumerate(lines)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def run(self, block: ShellBlock) -> None:
        for line in block.commands.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                words = tuple(shlex.split(command, comments=True))
                if words and words not in self.done:
                    assert _exit_code(words, self.forks) == 0, f"{block.page}:{block.line}: {command}"
                    self.done.add(words)


def _exit_code(words: tuple[str, ...], forks: Forks) -> int:
    program, *arguments = [*words, *(SMALLER.get(words[:2], SMALLER.get(words[:3], [])))]
    if program == "vpgea":
        return main.run(arguments)
    assert (program, arguments[0]) == ("python", "-m"), f"{program} is not run here: mark the block, and say why"
    return forks.start(arguments[1:], Path.cwd(), "said", dict(os.environ), script=MODULE).wait(120)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VPGEA_")]:
            patch.delenv(name)
        for name, value in {**SMALL, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        workshop = Workshop(folder, forks)
        for block in BLOCKS:  # the other pages go on from what README made
            if block.page == "README.md" and not block.mark:
                workshop.run(block)
        yield workshop


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_commands_of_a_page_work(page: str, workshop: Workshop) -> None:
    for block in BLOCKS:
        if block.page == page and not block.mark:
            workshop.run(block)

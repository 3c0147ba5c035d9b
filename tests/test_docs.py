"""README and docs name what is there: links, files, and options of the commands."""

import functools
import re
import shlex

import pytest
import tyro
from tiny_run import ROOT

from data_prep.__main__ import parse as parse_prep
from facedisent_jax.commands import evaluate, train

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}


def anchors(text: str) -> set[str]:
    """Of each heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(start: str) -> list[list[str]]:
    """The arguments after `start` of each command in a code block or in backticks."""
    argument_lists = []
    for text in PAGES.values():
        text = text.replace("\\\n", " ")
        lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            line = line.removeprefix("srun ")
            if line.startswith(start):
                argument_lists.append(shlex.split(line, comments=True)[len(start.split()) :])
    return argument_lists


def test_readme_has_at_most_180_lines():
    assert len(PAGES["README.md"].splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), target


@pytest.mark.parametrize("page", [name for name in PAGES if name != "CHANGELOG.md"])
def test_files_that_a_page_names_are_there(page):
    folders = "facedisent_jax|data_prep|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{folders})/[\w/.]+)`", PAGES[page]):
        assert (ROOT / name).exists(), name


def test_files_that_readme_lists_to_change_are_there():
    table = PAGES["README.md"].partition("## Where to change things")[2].partition("\n## ")[0]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", table):
        assert (ROOT / name).exists() or (ROOT / "facedisent_jax" / name).exists(), name


def test_train_accepts_the_options_that_the_docs_use():
    for arguments in commands("python train.py"):
        if "PRESET" not in arguments and "--help" not in arguments:
            train.parse(arguments)


def test_eval_accepts_the_options_that_the_docs_use():
    parsers = {name: functools.wraps(command)(lambda *_, **__: None) for name, command in evaluate.COMMANDS.items()}
    for arguments in commands("python eval.py"):
        if len(arguments) > 1 and "--help" not in arguments:
            tyro.extras.subcommand_cli_from_dict(parsers, args=arguments)


def test_data_prep_accepts_the_options_that_the_docs_use():
    for arguments in commands("python -m data_prep"):
        if len(arguments) > 1 and "--help" not in arguments:
            parse_prep(arguments)

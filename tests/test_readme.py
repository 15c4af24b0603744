"""The README and docs say what is so: command lines parse, examples run, names resolve, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import numpy as np
import pytest
import tomllib

from brainkit.cli import COMMANDS, group
from brainkit.config import Config

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CARD = [
    "brainkit train --backbone dinov2",
    "brainkit export --onnx",
    "brainkit predict images/ --out fmri.npy",
]


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """(line number, text) of a page's fenced blocks in some languages; "" for those that name none."""
    found, start, language = [], 0, None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if language is None:
            start, language = number + 1, line[3:].strip()
        else:
            if language in languages:
                found.append((start, "\n".join(lines[start - 1 : number - 1])))
            language = None
    assert language is None, f"{page.name}: a block is not closed"
    return found


def command_lines(page: Path) -> list[tuple[int, list[str]]]:
    """(line number, words after ``brainkit``) of the command lines in a page's blocks."""
    found = []
    for start, text in blocks(page, "sh", ""):
        for number, line in enumerate(text.splitlines(), start):
            if line.startswith("brainkit "):
                found.append((number, shlex.split(line, comments=True)[1:]))
    return found


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


def load_command(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


@each_page
def test_command_lines_parse(page: Path) -> None:
    for number, words in command_lines(page):
        where = f"{page_name(page)}:{number}"
        # COMMAND stands for any of them; it is followed by --help, which all have.
        name = words[0] if words[0] != "COMMAND" else "doctor"
        assert name in COMMANDS, f"{where}: no such command"
        if "--help" in words:
            continue
        try:
            load_command(name).make_context(f"brainkit {name}", words[1:])
        except click.ClickException as error:
            pytest.fail(f"{where}: {error.format_message()}")


@each_page
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    everywhere = {option for name in COMMANDS for option in options(name)}
    for span in re.findall(r"`([^`\n]+)`", text):
        if match := re.match(r"brainkit ([a-z]+)\b", span):
            name = match[1]
            assert name in COMMANDS, f"{page_name(page)}: `{span}`"
            unknown = set(re.findall(r"--[a-z][\w-]*", span)) - options(name)
            assert not unknown, f"{page_name(page)}: `{span}`: brainkit {name} has no {unknown}"
        elif match := re.match(r"(--[a-z][\w-]*)", span):
            assert match[1] in everywhere, f"{page_name(page)}: `{span}`"


def options(command: str) -> set[str]:
    """Options of a command, and of the commands below it."""
    loaded = load_command(command)
    below = loaded.commands.values() if isinstance(loaded, click.Group) else ()
    parameters = [each for one in (loaded, *below) for each in one.params]
    named = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
    return named | {"--help"}


def test_the_readme_has_the_three_commands_in_their_order() -> None:
    assert [text.splitlines() for _, text in blocks(README, "sh")].count(CARD) == 1


def test_the_readme_has_the_two_commands_and_make_knows_them() -> None:
    (first, *_) = blocks(README, "sh")
    assert first[1].splitlines() == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "examples/demo.py" in makefile


@each_page
def test_extras_that_are_named_exist(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for names in re.findall(r"(?:brainkit|'\.)\[([a-z,]+)\]", page.read_text(encoding="utf-8")):
        assert set(names.split(",")) <= set(extras), f"{page_name(page)}: [{names}]"


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    defaults = Config().to_dict()
    for section, key in re.findall(r"\b(backbone|data|model|train)\.(\w+)=", page.read_text(encoding="utf-8")):
        assert key in defaults[section], f"{page_name(page)}: {section}.{key}"


def test_defaults_that_the_method_page_states_are_the_defaults() -> None:
    config, text = Config(), (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    stated = [
        f"{config.model.grid} x {config.model.grid}",
        f"{config.model.selector_width} GELU",
        f"{config.train.regulariser:g} * decay",
        f"{100 * config.train.regulariser_end:g} %",
    ]
    assert not [value for value in stated if value not in " ".join(text.split())]


@each_page
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://|#", target):
            continue
        file = page.parent / target.partition("#")[0]
        assert file.exists(), f"{page_name(page)}: {target}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


@each_page
def test_python_examples_compile_and_their_names_exist(page: Path) -> None:
    for start, text in blocks(page, "python"):
        tree = ast.parse(text, filename=f"{page_name(page)}:{start}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "brainkit":
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page_name(page)}:{start}: {node.module}.{alias.name}"
            elif isinstance(node, ast.Attribute):
                check_attribute(ast.unparse(node), f"{page_name(page)}:{start}")


def check_attribute(dotted: str, where: str) -> None:
    """Resolve ``brainkit.a.b``; anything that begins otherwise is a value of the example's own."""
    first, *rest = dotted.split(".")
    if first != "brainkit" or not all(part.isidentifier() for part in rest):
        return
    found: object = importlib.import_module("brainkit")
    name = "brainkit"
    for part in rest:
        name = f"{name}.{part}"
        if not hasattr(found, part):
            assert importlib.util.find_spec(name), f"{where}: {dotted}"
            importlib.import_module(name)
        found = getattr(found, part)


def test_the_own_data_example_makes_a_folder_that_reads_as_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainkit.data import open_subject
    from brainkit.errors import DataError

    ((start, text),) = blocks(ROOT / "docs" / "own-data.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(compile("\n" * (start - 1) + text, "own-data.md", "exec"), {})
    for row in range(200):
        load_tiny_image(tmp_path / "mydata" / "images" / f"{row:03d}.png")
    with pytest.raises(DataError, match="constant"):  # the example's responses are zeros, to be replaced
        open_subject("mydata")
    responses = np.random.default_rng(0).standard_normal((200, 2000)).astype(np.float32)
    np.save("mydata/responses.npy", responses)
    subject = open_subject("mydata")
    assert len(subject) == 200 and len(subject.vertices) == 2000 and subject.vertices.n_left == 1000


def load_tiny_image(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8), (120, 60, 30)).save(path)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_would_run_what_the_readme_says(target: str) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-n", target], cwd=ROOT, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"demo": "examples/demo.py", "test": "pytest"}[target] in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_answers(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        group.main(words)
    assert end.value.code == 0


@pytest.mark.parametrize("name", ["recovery table", "comparison", "speed table"])
def test_the_numbers_are_those_of_the_results(name: str) -> None:
    from bench import readme

    text = README.read_text(encoding="utf-8")
    begin, end = readme.marks(name)
    assert f"{begin}\n{readme.PARTS[name]()}{end}" in text, "make it with: python -m bench.readme"

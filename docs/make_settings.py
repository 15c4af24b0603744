"""Write the tables of docs/settings.md from the texts in brainkit/config.py: ``python docs/make_settings.py``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import yaml

from brainkit import config

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"
BEGIN, END = "<!-- made by docs/make_settings.py -->\n", "<!-- end -->\n"


def tables() -> str:
    """One table per section."""
    published = yaml.safe_load((ROOT / "examples" / "published.yaml").read_text(encoding="utf-8"))
    parts = []
    for field in dataclasses.fields(config.Config):
        if not isinstance(field.default_factory, type):
            continue
        section = field.default_factory
        parts += [
            f"\n### {field.name}\n",
            "| setting | default | published | meaning | change it |",
            "|---|---|---|---|---|",
        ]
        texts = _texts(section)
        for setting in dataclasses.fields(section):
            meaning, when = texts[setting.name]
            other = published.get(field.name, {}).get(setting.name)
            shown = "" if other is None or other == setting.default else f"`{_plain(other)}`"
            parts.append(f"| `{setting.name}` | `{_plain(setting.default)}` | {shown} | {meaning} | {when} |")
    return "\n".join(parts) + "\n\n"


def page(text: str) -> str:
    """The page with new tables."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables() + END + after


def _texts(section: type) -> dict[str, tuple[str, str]]:
    """What each setting means and when to change it: the two paragraphs of the text under it."""
    (body,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), node.target.id
            meaning, when = inspect.cleandoc(after.value.value).split("\n\n")
            found[node.target.id] = " ".join(meaning.split()), " ".join(when.split())
    return found


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in ("", ()):
        return "(none)"
    return format(value, "g") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

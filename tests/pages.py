"""What the documentation claims: its code blocks, code spans, links and the tree in the README."""

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """All but the code blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self) -> list[str]:
        """Return the bodies of its code blocks."""
        return [match["body"] for match in _FENCE.finditer(self.text)]

    def spans(self) -> list[str]:
        """Return the code spans of its prose."""
        return _SPAN.findall(self.prose)

    def commands(self) -> list[str]:
        """Return the lines of code blocks, continued lines joined and comments cut, and the code spans."""
        joined = "\n".join(self.blocks()).replace("\\\n", " ")
        lines = [re.sub(r"(^|\s)#.*", "", line).strip().removeprefix("$ ") for line in joined.splitlines()]
        return [line for line in lines + self.spans() if line]

    def links(self) -> list[str]:
        """Where its links and pictures lead."""
        return _LINK.findall(self.prose)

    def anchors(self) -> set[str]:
        """Its headings as GitHub and GitLab spell them in links."""
        words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(self.prose))
        return {heading.strip().replace(" ", "-") for heading in words}


def annotated_tree(page: Page) -> dict[str, str]:
    """Return the tree of files in the first code block that has a line beginning with `generalist/`: phrase by path.

    A line is a name, or several with single spaces between, then two spaces or more and a phrase that says
    what it is. What lies in a folder (its name ends in `/`) is indented below it. A line that begins below
    the phrase of the line before goes on with that phrase.
    """
    block = next(block for block in page.blocks() if re.search(r"^generalist/", block, re.MULTILINE))
    tree: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    column = 0
    for line in filter(str.strip, block.splitlines()):
        indent = len(line) - len(line.lstrip())
        if column and indent >= column:
            tree[list(tree)[-1]] += " " + line.strip()
            continue
        names, _, phrase = line.strip().partition("  ")
        column = line.rindex(phrase.strip()) if phrase else 0
        folders = [(depth, path) for depth, path in folders if depth < indent]
        above = folders[-1][1] if folders else ""
        tree |= {above + name: phrase.strip() for name in names.split()}
        if names.endswith("/"):
            folders.append((indent, above + names))
    return tree

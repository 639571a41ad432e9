"""Reading a report back: its elements, their attributes and texts."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "wbr"}


class Parsed(HTMLParser):
    """Elements of a page in order, with their texts; an element closed out of order fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.setdefault(tag, [])
        if tag not in VOID:
            self._open.append(tag)
            self.texts[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict[str, str]]:
        """Return the attributes of each element of a class."""
        return [attributes for _, attributes in self.elements if name in attributes.get("class", "").split()]

    def text(self, tag: str) -> list[str]:
        """Return the texts of a kind of element, white space made single spaces."""
        return [" ".join(text.split()) for text in self.texts.get(tag, [])]


def section(html: str, name: str) -> Parsed:
    """One section of a page."""
    start = html.index(f'<section id="{name}"')
    return Parsed(html[start : html.index("</section>", start)])

"""The terminal: foreign text is shown as it is, even where it would mean something to a terminal or to Rich."""

from typing import Any

from rich.console import Console
from rich.text import Text

from generalist.untrusted import lines


class Terminal(Console):
    """A console without markup and emoji codes; control characters are shown as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """Go on: that nothing reads any more is no reason to stop a training."""
        self.quiet = True

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text of lines and cells."""
        return super().render_str(lines(text), **options)

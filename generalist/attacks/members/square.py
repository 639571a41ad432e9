"""Square from logits alone."""

from collections.abc import Iterator

from generalist.attacks.setting import Setting, Wave
from generalist.attacks.waves import by_queries


def waves(setting: Setting) -> Iterator[Wave]:
    """Yield the runs of this attack."""
    yield by_queries(setting, "square")

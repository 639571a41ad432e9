"""The templates of pages, and what they may call."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from generalist.report.styles import change, interval, percent, threat


@cache
def environment() -> Environment:
    """Return the environment of all templates: values are escaped, and an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("generalist.report", package_path="templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=percent, interval=interval, threat=threat, change=change)
    return made

"""A training on one page: `build` makes the HTML, `write_curves` the table behind `dvc plots`."""

from generalist.report.gallery import Gallery
from generalist.report.page import build
from generalist.report.table import write_curves

__all__ = ["Gallery", "build", "write_curves"]

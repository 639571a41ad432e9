"""A training on one page: `build` makes the HTML, `write_curves` the table behind `dvc plots`, `remixes` a picture."""

from generalist.report.curves import write_curves
from generalist.report.gallery import Gallery
from generalist.report.looks import attack_in_words
from generalist.report.page import build
from generalist.report.remixing import Course, Mixture, remixes

__all__ = ["Course", "Gallery", "Mixture", "attack_in_words", "build", "remixes", "write_curves"]

"""A training on one page: `build` makes the HTML, `write_curves` the table behind `dvc plots`, `remixes` a picture."""

from generalist.report.curves import write_curves as write_curves
from generalist.report.gallery import Gallery as Gallery
from generalist.report.looks import attack_in_words as attack_in_words
from generalist.report.page import build as build
from generalist.report.remixing import Course as Course
from generalist.report.remixing import Mixture as Mixture
from generalist.report.remixing import remixes as remixes

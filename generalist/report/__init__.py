"""A training on one page: `build` makes the HTML, `write_curves` the table behind `dvc plots`, `remixes` a picture."""

from generalist.report.curves import write_curves as write_curves
from generalist.report.gallery import Gallery as Gallery
from generalist.report.page import build as build
from generalist.report.remix_figure import Mixture as Mixture
from generalist.report.remix_figure import MixtureSeries as MixtureSeries
from generalist.report.remix_figure import remixes as remixes
from generalist.report.styles import attack_in_words as attack_in_words

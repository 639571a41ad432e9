"""The one plan of a training, and its steps, which this process or an orchestrator executes."""

from generalist.training.keys import Position, Positions
from generalist.training.plan import Round, plan
from generalist.training.run import Fact, Outcome, history, outcome, run
from generalist.training.steps import Candidate, Training

__all__ = [
    "Candidate",
    "Fact",
    "Outcome",
    "Position",
    "Positions",
    "Round",
    "Training",
    "history",
    "outcome",
    "plan",
    "run",
]

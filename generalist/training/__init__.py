"""The one plan of a training, and its steps, which this process or an orchestrator executes."""

from generalist.training.alarms import alarm
from generalist.training.crew import Crew, crew
from generalist.training.facts import Fact, identity
from generalist.training.forecast import Work, duration
from generalist.training.keys import Position, Positions
from generalist.training.plan import Round, plan
from generalist.training.run import PATIENCE, Outcome, history, outcome, run
from generalist.training.steps import Candidate, Training

__all__ = [
    "PATIENCE",
    "Candidate",
    "Crew",
    "Fact",
    "Outcome",
    "Position",
    "Positions",
    "Round",
    "Training",
    "Work",
    "alarm",
    "crew",
    "duration",
    "history",
    "identity",
    "outcome",
    "plan",
    "run",
]

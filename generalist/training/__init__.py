"""The one plan of a training, and its steps, which this process or an orchestrator executes."""

from generalist.training.alarms import alarm
from generalist.training.crew import Crew, crew
from generalist.training.facts import Fact, identity
from generalist.training.forecast import Work, duration
from generalist.training.keys import Position, Positions
from generalist.training.plan import Round, plan
from generalist.training.remixing import Averaged, Remixed, averaged_experts, best_remix, judged, ranked, remixed, sweep
from generalist.training.run import PATIENCE, Outcome, history, outcome, run
from generalist.training.segment import Diverged
from generalist.training.sharing import Sharing
from generalist.training.steps import Candidate, Training

__all__ = [
    "PATIENCE",
    "Averaged",
    "Candidate",
    "Crew",
    "Diverged",
    "Fact",
    "Outcome",
    "Position",
    "Positions",
    "Remixed",
    "Round",
    "Sharing",
    "Training",
    "Work",
    "alarm",
    "averaged_experts",
    "best_remix",
    "crew",
    "duration",
    "history",
    "identity",
    "judged",
    "outcome",
    "plan",
    "ranked",
    "remixed",
    "run",
    "sweep",
]

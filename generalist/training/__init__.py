"""The one plan of a training, and its steps, which this process or an orchestrator executes."""

from generalist.training.alarms import alarm
from generalist.training.facts import Fact, Facts, Tell, unheard
from generalist.training.forecast import Work, duration
from generalist.training.keys import Cuts, Position, Positions
from generalist.training.plan import Round, plan
from generalist.training.remixing import Averaged, Remixed, averaged_experts, best_remix, judged, ranked, remixed, sweep
from generalist.training.run import Ending, Outcome, drive, ending, history, learners, restarted, rounds, run, runner
from generalist.training.runners import InProcess, Runner
from generalist.training.segment import Diverged
from generalist.training.sharing import Sharing
from generalist.training.steps import Candidate, RoundEnd, Training

__all__ = [
    "Averaged",
    "Candidate",
    "Cuts",
    "Diverged",
    "Ending",
    "Fact",
    "Facts",
    "InProcess",
    "Outcome",
    "Position",
    "Positions",
    "Remixed",
    "Round",
    "RoundEnd",
    "Runner",
    "Sharing",
    "Tell",
    "Training",
    "Work",
    "alarm",
    "averaged_experts",
    "best_remix",
    "drive",
    "duration",
    "ending",
    "history",
    "judged",
    "learners",
    "plan",
    "ranked",
    "remixed",
    "restarted",
    "rounds",
    "run",
    "runner",
    "sweep",
    "unheard",
]

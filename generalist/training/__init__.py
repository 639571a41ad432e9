"""The one plan of a training, and its steps, which this process or an orchestrator executes."""

from generalist.training.facts import Fact, Facts, Tell, ignore
from generalist.training.forecast import GroupForecast, duration
from generalist.training.keys import CheckpointRef, CheckpointRefs, Cuts
from generalist.training.overfitting import catastrophic_overfitting_warning
from generalist.training.plan import Round, plan
from generalist.training.remix import (
    AveragedExperts,
    MeasuredMixture,
    averaged_experts,
    best_remix,
    measure_mixtures,
    mix_averaged,
    rank_mixtures,
    sweep,
)
from generalist.training.run import (
    Ending,
    Outcome,
    drive,
    ending,
    history,
    learners,
    make_runner,
    retry_lost_states,
    run,
    run_rounds,
)
from generalist.training.runners import InProcessRunner, Runner
from generalist.training.segment import Diverged
from generalist.training.sharing import Sharing
from generalist.training.trainer import Candidate, RoundEnd, Trainer

__all__ = [
    "AveragedExperts",
    "Candidate",
    "CheckpointRef",
    "CheckpointRefs",
    "Cuts",
    "Diverged",
    "Ending",
    "Fact",
    "Facts",
    "GroupForecast",
    "InProcessRunner",
    "MeasuredMixture",
    "Outcome",
    "Round",
    "RoundEnd",
    "Runner",
    "Sharing",
    "Tell",
    "Trainer",
    "averaged_experts",
    "best_remix",
    "catastrophic_overfitting_warning",
    "drive",
    "duration",
    "ending",
    "history",
    "ignore",
    "learners",
    "make_runner",
    "measure_mixtures",
    "mix_averaged",
    "plan",
    "rank_mixtures",
    "retry_lost_states",
    "run",
    "run_rounds",
    "sweep",
]

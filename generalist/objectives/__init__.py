"""What an expert minimises; each file here is one objective, found by its name."""

from generalist.objectives.contract import Learner, Loss, Objective

__all__ = ["Learner", "Loss", "Objective"]

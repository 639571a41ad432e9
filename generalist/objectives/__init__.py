"""What an expert minimises; each file here is one objective, found by its name."""

from generalist.objectives.contract import Context, Learner, Loss, Objective, Peer

__all__ = ["Context", "Learner", "Loss", "Objective", "Peer"]

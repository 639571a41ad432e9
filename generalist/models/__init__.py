"""Networks in their CIFAR form; each file here is one architecture, found by its name."""

from generalist.models.contract import Architecture, Classifier, Role, build, initialise

__all__ = ["Architecture", "Classifier", "Role", "build", "initialise"]

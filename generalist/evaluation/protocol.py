"""What a robust accuracy means: which images, which threats, which attacks."""

from generalist.attacks import VERSIONS
from generalist.attacks.resume import CODE
from generalist.config import AttackOptions, Config, EvaluationOptions
from generalist.data import Dataset, Split
from generalist.numerics import code_digest
from generalist.records import Protocol
from generalist.threats import threat_from


def protocol(config: Config, dataset: Dataset) -> Protocol:
    """What the robust accuracies of a configuration mean."""
    options = config.evaluation
    threats = tuple(str(threat_from(threat)) for threat in options.threats)
    return Protocol(
        split="test",
        n=len(first(dataset.test, options.images)),
        threats=threats,
        pgd=_described(options.pgd),
        cascade=_cascade_described(options),
        seed=options.seed,
        test_digest=dataset.test_digest,
        code=code_digest(CODE),
        validation=f"{threats[0]} {_described(options.choice)} on {dataset.digest}",
    )


def _cascade_described(options: EvaluationOptions) -> str:
    by_queries = "square" in VERSIONS[options.attack].members
    told = f"{options.attack}, {options.square_queries} queries" if by_queries else options.attack
    return told if options.precision == "float32" else f"{told}, searched in {options.precision}"


def _described(attack: AttackOptions) -> str:
    if attack.name != "pgd":
        return attack.name
    size = "2.5 eps / steps" if attack.step_size is None else str(attack.step_size.written)
    return f"pgd, {attack.steps} steps of {size}, {'random start' if attack.random_start else 'no random start'}"


def first(split: Split, images: int | str) -> Split:
    """The first `images` of a split in its own order, or all of it."""
    return split if images == "all" else Split(split.images[: int(images)], split.labels[: int(images)])

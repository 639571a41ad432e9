"""What a robust accuracy means: which images, which threats, which attacks."""

import logging
from collections.abc import Iterable

import numpy as np

from generalist.attacks import VERSIONS
from generalist.attacks.members import member_module, member_names
from generalist.code_digest import evaluation_code, plugins_of
from generalist.config import Config, EvaluationOptions, ModelOptions, ThreatOptions
from generalist.data import Dataset, Split
from generalist.data.dataset import Int64
from generalist.data.splits import stratified_indices
from generalist.evaluation.columns import STRONGER, attacks, attacks_within, described
from generalist.records import Protocol
from generalist.threats import threat_from


def protocol(config: Config, dataset: Dataset) -> Protocol:
    """Return what the robust accuracies of a configuration mean."""
    options = config.evaluation
    names = [options.attack, options.selection_attack.name, *(STRONGER if options.extra_attack else ())]
    threats = tuple(str(threat_from(threat)) for threat in options.threats)
    headline = " and ".join(str(threat_from(threat)) for threat in options.headline_threats)
    every = attacks(options)
    within = {str(threat): tuple(attacks_within(threat, options)) for threat in map(threat_from, options.threats)}
    return Protocol(
        split="test",
        n=len(evaluated_positions(dataset.test, options)),
        chosen="all" if options.images == "all" else f"stratified by class, seed {options.seed}",
        threats=threats,
        union=options.headline == "union",
        attacks=every,
        attacks_within={threat: names for threat, names in within.items() if len(names) < len(every)},
        seed=options.seed,
        test_digest=dataset.test_digest,
        code=code_behind(options.threats, names),
        validation=f"{headline} {described(options.selection_attack)} on {dataset.digest}",
    )


def code_behind(threats: Iterable[ThreatOptions], attacks: Iterable[str], network: ModelOptions | None = None) -> str:
    """Return the SHA-256 (hex) of the code behind verdicts.

    Args:
        threats: whose norms are in it.
        attacks: names of single attacks, and of cascades, which stand for theirs.
        network: an architecture; protocols have none, as models of several are compared.
    """
    names = {name for attack in attacks for name in (VERSIONS[attack].members if attack in VERSIONS else (attack,))}
    plugins = {member_module(name) for name in names & set(member_names())}
    for section in (*threats, *([network] if network else [])):
        plugins |= plugins_of(section)
    return evaluation_code(plugins)


def subset(split: Split, options: EvaluationOptions) -> Split:
    """Return the images that are evaluated, the same for every learner; log a warning where classes are left out."""
    if options.images == "all" or options.images >= len(split):
        return split
    positions = evaluated_positions(split, options)
    classes, chosen_classes = len(np.unique(split.labels)), len(np.unique(split.labels[positions]))
    if chosen_classes < classes:
        _LOG.warning(
            "evaluation.images is %d, which leaves out %d of %d classes",
            len(positions),
            classes - chosen_classes,
            classes,
        )
    return Split(split.images[positions], split.labels[positions])


def evaluated_positions(split: Split, options: EvaluationOptions) -> Int64:
    """Return the positions of the images that are evaluated: a choice with the shares of all classes, or all."""
    count = len(split) if options.images == "all" else options.images
    return stratified_indices(split.labels, count, seed=options.seed)


_LOG = logging.getLogger("generalist")

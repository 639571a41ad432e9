"""Presets of digits, cut down to what takes seconds: every part of a method still has its turn."""

from generalist.config import Config, load, preset_names

DIGITS = [name for name in preset_names() if name.split("-")[0] == "digits"]
IMAGES = "data.images=640"
"""As in `training_factory.SMALL`: what one preset prepares serves others, too."""


def overrides(name: str) -> list[str]:
    """Return what makes a preset small: two epochs, of which an expert that follows another one has the second."""
    whole = load(preset=name)
    few = [IMAGES, "model.width=4", "training.epochs=2", "training.batch_size=256", "training.checkpoint_epochs=1"]
    few += [
        "evaluation.attack=quick",
        "evaluation.images=12",
        "evaluation.pgd.steps=2",
        "evaluation.extra_attack=false",
    ]
    few += ["evaluation.selection_attack={name: pgd, steps: 2, step_size: null, random_start: true}"]
    if whole.mixing is not None:
        few += ["mixing.warm_up=1", "mixing.interval=1"]
    if whole.evaluation.conditions:
        few.append(f"evaluation.conditions={[float(condition) for condition in whole.evaluation.conditions[:2]]}")
    for expert, options in whole.experts.items():
        place, objective = f"experts.{expert}.objective", options.objective
        while (base := getattr(objective, "base", None)) is not None:
            place, objective = f"{place}.base", base
        if getattr(getattr(objective, "attack", None), "steps", 0) > 2:
            few += [f"{place}.attack.steps=2"]
        if (sequence := options.sequence) is not None:
            few += [f"experts.{expert}.sequence.start={min(sequence.start, 1)}"]
            few += [] if sequence.stop is None else [f"experts.{expert}.sequence.stop=1"]
    return few


def few(name: str) -> Config:
    """Return a preset with `overrides`."""
    return load(preset=name, overrides=overrides(name))

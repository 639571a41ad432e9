"""Keys of `params.yaml` that have another name now, for files and commands from before."""

RENAMED = {
    "engine.plain": "engine.eager",
    "evaluation.choice": "evaluation.selection_attack",
    "evaluation.stronger": "evaluation.extra_attack",
    "mixing.hand_back": "mixing.redistribute",
    "training.checkpoint": "training.checkpoint_epochs",
    "training.initial": "training.initial_weights",
    "tuning.startup": "tuning.startup_trials",
}


def renamed(path: str) -> str | None:
    """Return the sentence that names the new key in place of an unknown one, or of what lies in it; None for others."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        old = ".".join(parts[:end])
        if old in RENAMED:
            return f"{old} is now {RENAMED[old]}"
    return None

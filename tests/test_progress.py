"""Progress: live lines in a terminal, few plain lines elsewhere, whole lines from several threads."""

import io
import threading

from rich.console import Console

from generalist.attacks import AttackProgress
from generalist.records import Accuracy, EpochRecord, Measured, RoundRecord
from pipelines.progress import Progress


def epoch(
    number: int, *, expert: str = "robust", seconds: float = 2.0, validation: Measured | None = None
) -> EpochRecord:
    """Return an epoch of 1,000 images with a training accuracy of 75 %."""
    return EpochRecord(
        expert=expert,
        epoch=number,
        loss=0.5,
        accuracy=0.75,
        gradient_norm=1.5,
        learning_rate=0.1,
        images=1000,
        seconds=seconds,
        validation=validation,
    )


def measured() -> Measured:
    """Natural 80 %, robust 50 % of ten images."""
    return Measured(natural=Accuracy(correct=8, n=10), robust=Accuracy(correct=5, n=10))


def end_of_round(weights: dict[str, float]) -> RoundRecord:
    """Return the third round, which ends at epoch 30."""
    return RoundRecord(round=3, epoch=30, weights=weights, handed_back=True, validation=measured(), digest="d")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_plain_line_tells_epoch_accuracy_speed_and_time_left() -> None:
    """It names all four, and the validation where there is one."""
    lines: list[str] = []
    with Progress(write=lines.append, every=0) as progress:
        progress.epoch(epoch(10), 40)
        progress.epoch(epoch(11, validation=measured()), 40)
    assert lines == [
        "robust: epoch 10/40, accuracy 75.0 %, 500 images/s, 0:01:00 left",
        "robust: epoch 11/40, accuracy 75.0 %, validation: natural 80.0 %, robust 50.0 %, 500 images/s, 0:00:58 left",
    ]


def test_time_left_follows_the_latest_epochs() -> None:
    """Five epochs decide; older ones, such as those read from the store, are forgotten."""
    lines: list[str] = []
    progress = Progress(write=lines.append, every=0)
    progress.epoch(epoch(1, seconds=1000), 16)
    for number in range(2, 7):
        progress.epoch(epoch(number, seconds=2), 16)
    assert lines[-1].endswith("0:00:20 left")


def test_plain_lines_of_an_expert_keep_their_distance_but_for_the_last() -> None:
    """Quick epochs don't flood a log; each expert has its own turn, and its last epoch is always told."""
    lines: list[str] = []
    clock = Clock()
    progress = Progress(write=lines.append, every=5, clock=clock)
    for number in range(1, 9):
        for expert in ("natural", "robust"):
            progress.epoch(epoch(number, expert=expert), 8)
        clock.now += 2
    told = [line.split(",")[0] for line in lines]
    assert told == [f"{expert}: epoch {number}/8" for number in (1, 4, 7, 8) for expert in ("natural", "robust")]


def test_a_round_and_what_is_said_are_told_at_once() -> None:
    """Rounds are rare, so each has its line; an unmixed learner is not called global."""
    lines: list[str] = []
    progress = Progress(write=lines.append)
    progress.round(end_of_round({"natural": 0.5, "robust": 0.5}))
    progress.round(end_of_round({}))
    progress.say("evaluating")
    assert lines == [
        "round 3, epoch 30: global learner on the validation split: natural 80.0 %, robust 50.0 %",
        "round 3, epoch 30: learner on the validation split: natural 80.0 %, robust 50.0 %",
        "evaluating",
    ]


def test_without_a_terminal_there_are_no_control_characters() -> None:
    """A file gets text alone, one line each, however long."""
    file = io.StringIO()
    with Progress(console=Console(file=file, width=20), every=0) as progress:
        progress.epoch(epoch(1), 2)
        progress.say("[bold]is not markup[/bold]")
    assert file.getvalue().splitlines() == [
        "robust: epoch 1/2, accuracy 75.0 %, 500 images/s, 0:00:02 left",
        "[bold]is not markup[/bold]",
    ]


def test_a_terminal_shows_one_live_line_for_each_expert() -> None:
    """The line at the end tells the last epoch, and what is said stays above it."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=100, legacy_windows=False)
    with Progress(console=console) as progress:
        progress.epoch(epoch(1, expert="natural"), 40)
        progress.epoch(epoch(2), 40)
        progress.epoch(epoch(2, expert="natural"), 40)
        progress.say("round over")
    *_, natural, robust = [line for line in file.getvalue().splitlines() if "epoch" in line]
    assert "natural" in natural and "epoch 2/40 accuracy 75.0 % 500 images/s 0:01:16 left" in natural
    assert "robust" in robust and "epoch 2/40" in robust
    assert "round over" in file.getvalue()


def test_two_threads_may_report_at_once() -> None:
    """Every line arrives, whole."""
    file = io.StringIO()
    with Progress(console=Console(file=file, width=200), every=0) as progress:

        def report(expert: str) -> None:
            for number in range(1, 101):
                progress.epoch(epoch(number, expert=expert), 100)

        threads = [threading.Thread(target=report, args=(expert,)) for expert in ("natural", "robust")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = sorted(line.split(",")[0] for line in file.getvalue().splitlines())
    assert told == sorted(f"{expert}: epoch {n}/100" for expert in ("natural", "robust") for n in range(1, 101))


def standing(done: float, *, attack: str = "apgd-ce", images: int = 64, robust: int = 60) -> AttackProgress:
    """Return an attack on 100 images."""
    return AttackProgress(attack=attack, images=images, done=done, robust=robust, n=100)


def test_a_plain_line_tells_how_far_an_attack_is() -> None:
    """The share that is done, robust so far, survivors, the time left as soon as it is known; then its end."""
    lines: list[str] = []
    clock = Clock()
    progress = Progress(write=lines.append, every=0, clock=clock)
    for done, now in ((0.0, 0.0), (0.25, 10.0), (0.5, 20.0), (1.0, 40.0)):
        clock.now = now
        progress.attack("global", standing(done, robust=int(100 - 40 * done)))
    assert lines == [
        "global: apgd-ce: 0 %, robust so far 100.0 %, 100 of 100 survive",
        "global: apgd-ce: 25 %, robust so far 90.0 %, 90 of 100 survive, 0:00:30 left",
        "global: apgd-ce: 50 %, robust so far 80.0 %, 80 of 100 survive, 0:00:20 left",
        "global: apgd-ce: robust so far 60.0 %, 60 of 100 survive, after 0:00:40",
    ]


def test_what_an_attack_took_on_one_learner_foretells_the_next() -> None:
    """By the images that survive; one whose last runs had no images left ends when the next attack begins."""
    lines: list[str] = []
    clock = Clock()
    progress = Progress(write=lines.append, every=0, clock=clock)
    progress.attack("natural", standing(0.0, attack="square", robust=80))
    clock.now = 40.0
    progress.attack("natural", standing(1.0, attack="square", robust=40))
    progress.attack("global", standing(0.0, attack="apgd-ce", robust=90))
    progress.attack("global", standing(0.5, attack="apgd-ce", robust=0))
    progress.attack("global", standing(0.0, attack="square", robust=20))
    assert lines[-2:] == [
        "global: apgd-ce: robust so far 0.0 %, 0 of 100 survive, after 0:00:00",
        "global: square: 0 %, robust so far 20.0 %, 20 of 100 survive, 0:00:10 left",
    ]


def test_plain_lines_of_attacks_keep_their_distance_but_for_the_end() -> None:
    """A log of hours stays readable."""
    lines: list[str] = []
    progress = Progress(write=lines.append, every=5, clock=Clock())
    for done in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        progress.attack("global", standing(done))
    assert len(lines) == 2 and "after" in lines[-1]


def test_a_terminal_shows_a_bar_for_each_learner_and_attack_in_place_of_the_training() -> None:
    """The bars at the end are those of the attacks under way; what ended is told above them."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=140, legacy_windows=False)
    clock = Clock()
    with Progress(console=console, clock=clock) as progress:
        progress.epoch(epoch(40), 40)
        progress.attack("natural", standing(0.0))
        progress.attack("global", standing(0.0))
        clock.now = 30.0
        progress.attack("natural", standing(1.0, robust=10))
        progress.attack("natural", standing(0.0, attack="square", robust=10))
        progress.attack("global", standing(0.75, robust=70))
    *_, one, other = [line for line in file.getvalue().splitlines() if "survive" in line]
    assert "global: apgd-ce" in one and "robust so far 70.0 %, 70 of 100 survive 0:00:10 left" in one
    assert "natural: square" in other and "10 of 100 survive" in other
    shown = file.getvalue().splitlines()[-2:]
    assert not any("epoch" in line or "0:00:00 left" in line for line in shown)
    assert "natural: apgd-ce: robust so far 10.0 %, 10 of 100 survive, after 0:00:30" in file.getvalue()

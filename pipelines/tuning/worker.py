"""A worker of a search: takes trials, trains them, tells what came of them; alone in its process.

    GENERALIST_TUNING=ADDRESS python -m pipelines.end_with_parent pipelines.tuning.worker NAME

The address is in the environment, as it may hold a password and command lines can be read by everybody.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.trial import TrialState

from generalist import engine
from generalist.code_digest import plugins_of, training_code
from generalist.config import Config, SelectionAttackOptions
from generalist.config.names import check_name
from generalist.data import Dataset
from generalist.errors import BadInput
from generalist.evaluation import protocol
from generalist.records import Measured
from generalist.store import StateLost, Store
from generalist.training import Diverged, RoundEnd, retry_lost_states
from generalist.training.remix import best_remix
from pipelines import steps
from pipelines.trial_records import Point, Remix, TrialRecord
from pipelines.tuning.storage import address_of, close, open_storage
from pipelines.tuning.study import RECORD, SEARCH, WORKER, Search, Worker, join_search
from pipelines.tuning.trial_training import SharingRunner, points, training_of_trial
from pipelines.workspace import Workspace, quiet_telemetry

_SIGN_EVERY = 15.0  # seconds between two signs of life
_KEEP_EVERY = 1.0  # seconds between two times at which what a trial tells is stored
_GLANCE = 0.3  # seconds between two looks for a trial, while others work at the last ones
_REMIXES = 6  # points of a sweep over two experts' weights


def work(search: Search, workspace: Workspace) -> int:
    """Work until no trial of a search is left; how many were worked at."""
    done, known, worker = 0, _Data.read(search.space.config, workspace), Worker(search)
    try:
        while True:
            search.requeue_stale()
            trial = search.next(worker)
            if trial is not None:
                _run_trial(search, trial, worker, known)
                done += 1
            elif search.left():
                time.sleep(_GLANCE)
            else:
                return done
    finally:
        worker.close()


@dataclass(frozen=True)
class _Data:
    """What all trials have in common; no dimension of a search changes the data."""

    dataset: Dataset
    store: Store
    root: Path

    @classmethod
    def read(cls, config: Config, workspace: Workspace) -> Self:
        """Read all of it, and the digests of the code, which every training asks for and which take a moment first."""
        training_code(plugins_of(config.model))
        protocol(config, dataset := steps.dataset(config, workspace))
        return cls(dataset, steps.open_store(workspace), workspace.here)


class _Told:
    """What a trial tells, kept in the storage as it grows, so that an interrupted one goes on counting."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._since = self._kept = time.perf_counter()
        self.before = TrialRecord(number=trial.number, state="running", **trial.user_attrs.get(RECORD, {}))

    def keep_if_due(self, training: SharingRunner, **more: Any) -> None:
        """Store what is known now, if that was not done just before."""
        if time.perf_counter() - self._kept > _KEEP_EVERY:
            self.keep(training, **more)

    def keep(self, training: SharingRunner | None, **more: Any) -> None:
        """Store what is known now."""
        self._kept = time.perf_counter()
        seconds = self._kept - self._since
        fields: dict[str, Any] = {"seconds": self.before.seconds + seconds, **more}
        if training is not None:
            cost = training.work
            fields |= {
                "epochs_asked": cost.asked,
                "epochs_trained": self.before.epochs_trained + cost.trained,
                "overhead": self.before.overhead + seconds - cost.busy - cost.waited,
            }
        record = self.before.model_copy(update=fields).model_dump(
            mode="json", exclude={"number", "state", "params", "values"}
        )
        self._trial.set_user_attr(RECORD, record)


def _run_trial(search: Search, trial: optuna.Trial, worker: Worker, known: _Data) -> None:
    """Try one trial, from its point to its values, or to the reason why it has none."""
    recorder = _Told(trial)
    with _send_heartbeats(search, trial, worker):
        point = search.space.suggest(trial)
        overrides = search.space.overrides(point)
        try:
            config = search.space.at(point)
        except BadInput as error:  # its values don't go together
            recorder.keep(None, overrides=overrides, reason=str(error))
            _tell(search, trial, TrialState.FAIL)
            return
        training = training_of_trial(search.space, config, known.dataset, known.store, known.root)
        try:
            outcome = retry_lost_states(
                known.store, lambda: _train_and_judge(search, trial, training, recorder, overrides)
            )
            state = TrialState.PRUNED if "reason" in outcome else TrialState.COMPLETE
        except Diverged as error:  # its own fault; what else goes wrong would go wrong with every trial
            outcome, state = {"reason": str(error)}, TrialState.FAIL
        recorder.keep(training, overrides=overrides, **outcome)
        whole = state is TrialState.COMPLETE
        _tell(search, trial, state, search.objective.values(outcome["validation"]) if whole else None)


def _train_and_judge(
    search: Search, trial: optuna.Trial, training: SharingRunner, recorder: _Told, overrides: tuple[str, ...]
) -> dict[str, Any]:
    """Train round by round, then judge; or say why it was pruned."""
    ends: list[RoundEnd] = []
    curve: list[Point] = []
    reported = set(search.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    for round_ in training.rounds():
        ends.append(round_)
        curve += points(round_)
        recorder.keep_if_due(training, overrides=overrides, curve=tuple(curve))
        if len(search.objective.names) > 1:
            continue
        for point in _rungs(search, round_):
            if point.epoch not in reported:
                trial.report(search.objective.value(point.validation), point.epoch)
            if trial.should_prune():
                return {"curve": tuple(curve), "reason": _pruning_reason(search, point)}
    return {"curve": tuple(curve), **_judge(search, training, ends)}


def _rungs(search: Search, end: RoundEnd) -> Iterator[Point]:
    """Where trials are compared: the same epochs in all of them, once the experts have met."""
    options = search.space.config
    for point in points(end):
        if end.round.index and point.epoch % options.tuning.rung == 0 and point.epoch < options.training.epochs:
            yield point


def _pruning_reason(search: Search, at: Point) -> str:
    value = search.objective.value(at.validation)
    return f"{search.objective.names[0]} {value:.4f} after epoch {at.epoch}: {type(search.study.pruner).__name__}"


def _judge(search: Search, training: SharingRunner, ends: list[RoundEnd]) -> dict[str, Any]:
    """Measure the chosen candidate by the attack that counts, and the best that re-mixing would make of it."""
    with training.work.timed(), engine.threads(search.space.config.training.threads):
        chosen = training.training.choose([end.candidate for end in ends])
        validation = training.training.measured(chosen, attack_of(search.space.config))
        return {
            "epoch": chosen.record.epoch,
            "validation": validation,
            "remix": _remix(search, training, {end.round.stop: end for end in ends}[chosen.record.epoch], validation),
        }


def _remix(search: Search, training: SharingRunner, end: RoundEnd, validation: Measured) -> Remix | None:
    """None where nothing is mixed, an expert was hardly in the mixture, or no other mixture is better."""
    config, value = search.space.config, search.objective.value
    if config.deploy != "global":
        return None
    try:
        mixture = best_remix(
            training.training,
            end.last,
            value=value,
            coarse=config.evaluation.selection_attack,
            attack=attack_of(config),
            count=_REMIXES,
        )
    except StateLost:  # which is no answer: the trial is taken up again, and the state computed again
        raise
    except BadInput:
        return None
    better = value(mixture.validation) > value(validation)
    return Remix(weights=mixture.factors, validation=mixture.validation) if better else None


def attack_of(config: Config) -> SelectionAttackOptions:
    """Return the attack that decides a trial's value."""
    return (
        SelectionAttackOptions(name="quick") if config.tuning.attack == "quick" else config.evaluation.selection_attack
    )


def _tell(search: Search, trial: optuna.Trial, state: TrialState, values: tuple[float, ...] | None = None) -> None:
    """Tell the values, unless another worker took the trial over as abandoned and was faster, with the same values."""
    search.study.tell(trial, values=values, state=state, skip_if_finished=True)


@contextmanager
def _send_heartbeats(search: Search, trial: optuna.Trial, worker: Worker) -> Iterator[None]:
    """Give signs of life, as long as the block lasts."""
    over = threading.Event()

    def sign() -> None:
        while not over.wait(_SIGN_EVERY):
            search.storage.set_trial_user_attr(trial._trial_id, WORKER, worker.heartbeat())
        search.storage.remove_session()  # which is this thread's

    thread = threading.Thread(target=sign, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def join(workspace: Workspace, *, name: str, address: str | None) -> int:
    """Work at a search until it ends; how many trials were worked at.

    Raises:
        BadInput: there is none of that name, or it can't be one, or the storage can't be used.
    """
    check_name(name, SEARCH)
    storage = open_storage(address_of(workspace, address))
    try:
        return work(join_search(name, storage, workspace.locks), workspace)
    finally:
        close(storage)


def main(words: list[str]) -> int:
    """Run the program."""
    quiet_telemetry()
    try:
        join(Workspace.find(), name=words[0], address=None)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

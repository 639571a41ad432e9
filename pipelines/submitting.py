"""Training and evaluation by Prefect's tasks: what is submitted, and what comes of it in the process of the flow."""

import time
from collections.abc import Sequence

from prefect.futures import wait
from pydantic_core import to_jsonable_python as plain

from generalist.config import Config
from generalist.evaluation import learner_names
from generalist.records import Evaluation
from generalist.store import StateLost
from generalist.training import (
    CheckpointRefs,
    Cuts,
    Fact,
    Outcome,
    Round,
    RoundEnd,
    ending,
    history,
    make_runner,
    retry_lost_states,
)
from pipelines import artifacts, steps, tasks
from pipelines.results import Results
from pipelines.run_context import Plain, RunContext, RunSpec, ending_of, learners_of


def train(job: RunContext, spec: RunSpec) -> Plain:
    """Carry out the plan, and return where it ended."""

    def once() -> Plain:
        end = plain(ending(job.training, _Tasks(job, spec)))
        learners_of(spec, end)  # a state that is lost is computed again now
        return end

    with make_runner(job.training, job.facts) as job.runner:
        return retry_lost_states(job.training.store, once, tell=job.watch.say)


def evaluate(job: RunContext, spec: RunSpec, end: Plain, staged: Results) -> Evaluation:
    """Evaluate all learners, and write what was recorded of them, where the next tasks read it."""
    since = time.perf_counter()
    training, attack = job.training, job.config.evaluation.attack
    outcome = Outcome(history(job.facts.all()), ending_of(end).chosen.record, learners_of(spec, end))
    shards, names = steps.shards(training), learner_names(outcome.learners, job.config.evaluation)
    learners, n = ", ".join(names), shards[-1].stop
    job.watch.say(f"evaluating {learners} on the test split ({n} images): PGD, then {attack}")
    several = len(shards) > 1
    futures = {
        name: [
            tasks.evaluate.submit(
                f"evaluate {name} ({attack})" + (f", {tasks.images(rows)}" if several else ""), spec, end, name, index
            )
            for index, rows in enumerate(shards)
        ]
        for name in names
    }
    verdicts = {}
    for name, learner_futures in futures.items():
        parts = []
        for future in learner_futures:
            part, reports = future.result()
            parts.append(part)
            for standing in reports:
                job.attacked(*standing)
        verdicts[name] = steps.combine_shards(training, outcome, name, parts)
    evaluation = steps.build_evaluation(training, outcome, verdicts, since=since)
    steps.write_records(training, outcome, evaluation, verdicts, staged)
    steps.write_adversarial(verdicts[evaluation.deployed].adversarial, staged)
    artifacts.final(evaluation)
    return evaluation


class _Tasks:
    """A runner by Prefect: the groups of a round as tasks side by side, then one that mixes."""

    def __init__(self, job: RunContext, spec: RunSpec) -> None:
        self._job, self._spec = job, spec

    def advance(self, round_: Round, positions: CheckpointRefs) -> Cuts:
        """Train every group to the end of a round."""
        advanced = [
            tasks.advance.submit(
                _title(round_, group, self._job.config), self._spec, round_.index, list(group), plain(positions)
            )
            for group in round_.groups
        ]
        cuts: Cuts = {}
        try:
            for task in advanced:
                group_cuts, facts = task.result()
                self._pass_on(facts)
                cuts |= group_cuts
        except StateLost:
            wait(advanced)  # a new start should not train beside them
            raise
        return cuts

    def mix(self, round_: Round, cuts: Cuts) -> RoundEnd:
        """End a round."""
        end, facts = tasks.mix(f"mix round {round_.index} (epoch {round_.stop})", self._spec, round_.index, plain(cuts))
        self._pass_on(facts)
        artifacts.rounds(self._job.facts.all())
        return end

    def _pass_on(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            self._job.facts(fact)


def _title(round_: Round, group: tuple[str, ...], config: Config) -> str:
    """Return words such as `warm up robust`, later `train robust, epochs 26 to 27`."""
    who = " and ".join(group)
    if config.mixing is not None and round_.stop <= config.mixing.warm_up:
        return f"warm up {who}"
    return f"train {who}, epochs {round_.start + 1} to {round_.stop}"

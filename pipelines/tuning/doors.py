"""The ways into a search: begin or go on with one, or work at somebody else's."""

from functools import partial

from optuna.trial import TrialState

from generalist.config import Config
from generalist.config.naming import check_name
from pipelines.trials import StudyRecord
from pipelines.tuning.hands import Process
from pipelines.tuning.searching import Tell, files_of, fill, searched
from pipelines.tuning.storage import address_of, close, opened
from pipelines.tuning.study import Search, created, joined
from pipelines.workspace import Workspace

SEARCH = "the search's name"
"""Whose name it is, for whoever gave a wrong one."""


def run(
    workspace: Workspace,
    config: Config,
    *,
    name: str | None,
    address: str | None,
    workers: int,
    tell: Tell,
    shown: type[Process] = Process,
) -> tuple[Search, StudyRecord]:
    """Search until all trials have ended.

    Args:
        workspace: where.
        config: what is varied, and how; all of `tuning`.
        name: of the search; by default one that follows from the configuration.
        address: of the storage; by default the project's own journal.
        workers: how many work at once.
        tell: is told what happens.
        shown: what a worker is here: a process, and perhaps something by which people see it.

    Raises:
        BadInput: the name is none, the space is wrong, the storage can't be used, somebody leads this search already,
            or workers die again and again.
    """
    if name is not None:
        check_name(name, SEARCH)
    where = address_of(workspace, address)
    search = created(config, opened(where), workspace.locks, name=name)
    with workspace.lock(files_of(workspace, search).folder):
        grid = config.tuning.sampler == "grid"
        fill(search, search.space.grid() if grid else [{}] * config.tuning.trials)
        waiting = len(search.trials(TrialState.WAITING, TrialState.RUNNING))
        workers = max(1, min(workers, waiting))  # with nothing to do they would only start and end
        tell(f"search {search.name}: {len(search.trials())} trials, {waiting} of them to do, workers: {workers}")
        start = partial(shown, workspace, search.name, where)
        return search, searched(workspace, search, start=start, workers=workers, tell=tell)


def join(workspace: Workspace, *, name: str, address: str | None) -> int:
    """Work at a search until it ends; how many trials were worked at.

    Raises:
        BadInput: there is none of that name, or it can't be one, or the storage can't be used.
    """
    from pipelines.tuning.worker import work

    check_name(name, SEARCH)
    storage = opened(address_of(workspace, address))
    try:
        return work(joined(name, storage, workspace.locks), workspace)
    finally:
        close(storage)

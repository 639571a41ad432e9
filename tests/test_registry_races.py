"""Several at one registry, and whoever is killed in it: one version a file, one champion, which is no opponent of itself."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.registry import rollback
from pipelines.workspace import Workspace
from tests import tracking_factory as factory
from tests.processes import forking
from tests.registry_factory import BETTER, GOOD, WORSE, Registry

pytestmark = pytest.mark.long

BEST = replace(GOOD, seed=61, validation=(20, 16))
WRITES = (
    "create_registered_model",
    "create_model_version",
    "update_registered_model",
    "delete_model_version",
    "set_model_version_tag",
    "delete_model_version_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_logged_model_tags",
)
"""All that a door of the registry changes in MLflow."""


@pytest.fixture
def other(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The same registered model, seen from another project with locks of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.workspace.tracking_uri)
    return Registry(Workspace(tmp_path / "other", tmp_path / "other"), registry.name, registry.folder)


@contextmanager
def before(monkeypatch: pytest.MonkeyPatch, method: str, do: Callable[[], object]) -> Iterator[None]:
    """Once, just before MLflow is asked for something."""
    original, done = getattr(MlflowClient, method), []

    def asked(self: MlflowClient, *given: Any, **named: Any) -> Any:
        if not done:
            done.append(True)
            do()
        return original(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, asked)
        yield
    assert done


def versions(registry: Registry) -> list[int]:
    """Their numbers."""
    return sorted(int(own.version) for own in registry.client.search_model_versions(f"name='{registry.name}'"))


def test_two_projects_register_one_file_at_the_same_time(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sees a version of the file, both make one: the lower one stays, for both."""
    registry.register(GOOD)
    with before(monkeypatch, "create_model_version", lambda: other.register(BETTER)):
        registration = registry.register(BETTER)
    assert (registration.version, registration.alias) == (2, "champion")
    assert versions(registry) == [1, 2]
    assert registry.client.get_model_version(registry.name, "2").tags["former_champion"] == "1"
    assert other.register(BETTER).version == 2


def test_what_another_project_left_of_one_file_goes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed after it had made a version; whoever looks next keeps the lower one."""
    registry.register(GOOD)

    class KilledError(BaseException):
        """As `kill -9`."""

    def killed() -> None:
        raise KilledError

    with before(monkeypatch, "set_logged_model_tags", killed), pytest.raises(KilledError):
        registry.register(BETTER)
    tags = registry.client.get_model_version(registry.name, "2").tags
    source = registry.client.get_model_version(registry.name, "2").source
    registry.client.create_model_version(registry.name, source, tags=tags)
    registration = registry.register(BETTER)
    assert (registration.version, registration.alias, versions(registry)) == (2, "champion", [1, 2])


@pytest.mark.parametrize("at", ["create_model_version", "set_logged_model_tags"])
def test_a_champion_that_came_meanwhile_is_compared_with(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Both are better than the champion was; the one that is slower and worse does not replace the other."""
    registry.register(GOOD)
    registry.results(BEST)
    with before(monkeypatch, at, lambda: other.register(BEST)):
        registration = registry.register(BETTER)
    assert registration.alias == "challenger"
    assert "on the validation split" in registration.reasons[0]
    best = other.register(BEST)
    assert (best.alias, best.reasons, registry.champion) == ("champion", (), best.version)
    assert registry.client.get_model_version(registry.name, str(best.version)).tags["former_champion"] == "1"


def test_a_first_champion_that_came_meanwhile_is_compared_with(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is champion unopposed because nobody was a moment ago."""
    with before(monkeypatch, "create_model_version", lambda: other.register(GOOD)):
        registration = registry.register(WORSE)
    assert (registration.alias, registry.champion) == ("challenger", 1)


@dataclass(frozen=True)
class Door:
    """A way to change the registry: what is there before, what is done, and what is so in the end."""

    given: tuple[factory.Model, ...]
    do: Callable[[Registry], object]
    champion: int
    former: str | None


DOORS = {
    "better": Door((GOOD,), lambda registry: registry.register(BETTER), 2, "1"),
    "worse": Door((GOOD,), lambda registry: registry.register(WORSE), 1, None),
    "rollback": Door((GOOD, BETTER), lambda registry: _rolled_back(registry, 1), 1, None),
}


def _rolled_back(registry: Registry, version: int) -> None:
    if registry.champion != version:
        rollback(registry.workspace, name=registry.name)


def killed_at(write: int, registry: Registry, door: Door) -> bool:
    """Whether another process that does it was killed, as it was about to change something for the n-th time."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def counting(original: Callable[..., Any]) -> Callable[..., Any]:
            def asked(*given: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == write:
                    os._exit(9)
                return original(*given, **named)

            return asked

        for name in WRITES:
            setattr(MlflowClient, name, counting(getattr(MlflowClient, name)))
        code = 1
        try:
            door.do(registry)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def check(registry: Registry) -> None:
    """Check what holds at every moment: one champion at most, no challenger beside itself, a real predecessor only."""
    found = registry.client.get_registered_model(registry.name) if versions(registry) else None
    aliases = {alias: str(number) for alias, number in found.aliases.items()} if found else {}
    champion = aliases.get("champion")
    assert champion is None or champion != aliases.get("challenger")
    for number in versions(registry):
        tags = registry.client.get_model_version(registry.name, str(number)).tags
        assert tags.get("former_champion") != str(number)
        if champion == str(number) and "former_champion" in tags:
            assert int(tags["former_champion"]) in versions(registry)


@forking
@pytest.mark.parametrize("name", DOORS)
def test_a_door_killed_at_any_call_is_gone_through_again(registry: Registry, name: str) -> None:
    """The registry is sound in between, and in the end as if nobody had been killed."""
    door, write = DOORS[name], 0
    while True:
        write += 1
        for model in door.given:
            registry.register(model)
        killed = killed_at(write, registry, door)
        check(registry)
        door.do(registry)
        check(registry)
        assert registry.champion == door.champion
        assert versions(registry) == list(range(1, len(versions(registry)) + 1))
        assert len(versions(registry)) == max(len(door.given), door.champion, 1 + (name == "worse"))
        tags = registry.client.get_model_version(registry.name, str(door.champion)).tags
        assert tags.get("former_champion") == door.former
        told = registry.client.get_registered_model(registry.name).description
        assert told.startswith("Image classifiers")
        registry.client.delete_registered_model(registry.name)
        if not killed:
            break
    assert write > 2


def test_a_champion_is_no_opponent_of_itself(registry: Registry) -> None:
    """Killed between alias and tag, it was compared with itself, and not better."""
    registry.register(GOOD)
    registry.register(BETTER)
    registry.client.delete_model_version_tag(registry.name, "2", "decided")
    registration = registry.register(BETTER)
    assert (registration.alias, registration.reasons, registry.champion) == ("champion", (), 2)
    assert set(registry.client.get_registered_model(registry.name).aliases) == {"champion"}
    assert registry.client.get_model_version(registry.name, "2").tags["former_champion"] == "1"

"""The import of torchvision, with and without its compiled operators."""

import importlib
from collections.abc import Callable

import pytest

from generalist import torchvision_compat
from generalist.torchvision_compat import import_torchvision, torchvision


class Imports:
    """A pretended import that goes through the given outcomes."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes, self.declared = list(outcomes), 0

    def load(self, _: str) -> object:
        """Give the next outcome: raise it if it is an error, else return it."""
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def declare(self) -> None:
        """Count declarations."""
        self.declared += 1


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Imports]:
    """Let outcomes take the place of imports, and count declarations."""

    def pretended(*outcomes: object) -> Imports:
        made = Imports(*outcomes)
        monkeypatch.setattr(importlib, "import_module", made.load)
        monkeypatch.setattr(torchvision_compat, "_declare_operators", made.declare)
        return made

    return pretended


MISSING = RuntimeError("operator torchvision::nms does not exist")


def test_an_import_that_works_is_left_alone(imports: Callable[..., Imports]) -> None:
    """Nothing is declared where the operators are there."""
    made = imports("torchvision")
    assert import_torchvision() == "torchvision"
    assert made.declared == 0


def test_missing_operators_are_declared_and_the_import_repeated(imports: Callable[..., Imports]) -> None:
    """The remedy is applied once, then the import goes through."""
    made = imports(MISSING, "torchvision")
    assert import_torchvision() == "torchvision"
    assert made.declared == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator other::nms does not exist"),
        ModuleNotFoundError("No module named 'torchvision'"),
        ImportError(str(MISSING)),
    ],
)
def test_other_failures_are_passed_on(error: Exception, imports: Callable[..., Imports]) -> None:
    """An import that fails for any other reason fails as it did, and nothing is declared."""
    made = imports(error, "torchvision")
    with pytest.raises(type(error)) as caught:
        import_torchvision()
    assert caught.value is error
    assert made.declared == 0


def test_a_remedy_that_does_not_help_is_tried_once(imports: Callable[..., Imports]) -> None:
    """If the import fails again, its error is the result."""
    made = imports(MISSING, MISSING)
    with pytest.raises(RuntimeError, match="does not exist"):
        import_torchvision()
    assert made.declared == 1


def test_the_real_one_has_what_we_use() -> None:
    """In this environment, whatever its builds, data sets and models can be reached."""
    assert torchvision.datasets.CIFAR10.train_list
    assert torchvision.models.resnet18

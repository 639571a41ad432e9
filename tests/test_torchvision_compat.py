"""The import of torchvision, with and without its compiled operators."""

import pytest

from generalist.torchvision_compat import import_torchvision, torchvision


class Imports:
    """A pretended import that goes through the given outcomes."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes, self.declared = list(outcomes), 0

    def load(self) -> object:
        """Give the next outcome: raise it if it is an error, else return it."""
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def declare(self) -> None:
        """Count declarations."""
        self.declared += 1


MISSING = RuntimeError("operator torchvision::nms does not exist")


def test_an_import_that_works_is_left_alone() -> None:
    """Nothing is declared where the operators are there."""
    imports = Imports("torchvision")
    assert import_torchvision(imports.load, declare=imports.declare) == "torchvision"
    assert imports.declared == 0


def test_missing_operators_are_declared_and_the_import_repeated() -> None:
    """The remedy is applied once, then the import goes through."""
    imports = Imports(MISSING, "torchvision")
    assert import_torchvision(imports.load, declare=imports.declare) == "torchvision"
    assert imports.declared == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator other::nms does not exist"),
        ModuleNotFoundError("No module named 'torchvision'"),
        ImportError(str(MISSING)),
    ],
)
def test_other_failures_are_passed_on(error: Exception) -> None:
    """An import that fails for any other reason fails as it did, and nothing is declared."""
    imports = Imports(error, "torchvision")
    with pytest.raises(type(error)) as caught:
        import_torchvision(imports.load, declare=imports.declare)
    assert caught.value is error
    assert imports.declared == 0


def test_a_remedy_that_does_not_help_is_tried_once() -> None:
    """If the import fails again, its error is the result."""
    imports = Imports(MISSING, MISSING)
    with pytest.raises(RuntimeError, match="does not exist"):
        import_torchvision(imports.load, declare=imports.declare)
    assert imports.declared == 1


def test_the_real_one_has_what_we_use() -> None:
    """In this environment, whatever its builds, data sets and models can be reached."""
    assert torchvision.datasets.CIFAR10.train_list
    assert torchvision.models.resnet18

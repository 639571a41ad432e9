"""The digest of the code that computes."""

import pytest

from generalist.numerics import _bare, code_digest, fingerprint

CODE = '''
"""What it is."""
def f(x):
    """What it does."""
    return x + 1  # why
'''


def test_comments_docstrings_and_layout_do_not_count() -> None:
    """They change no bits."""
    assert _bare(CODE) == _bare("def f(x): return (x\n  + 1)")


@pytest.mark.parametrize("change", [("x + 1", "x + 2"), ("x + 1", "1 + x"), ("def f(x)", "def f(x, y=0)")])
def test_code_counts(change: tuple[str, str]) -> None:
    """Any other change may."""
    assert _bare(CODE) != _bare(CODE.replace(*change))


def test_training_does_not_depend_on_attacks_of_the_evaluation() -> None:
    """A change to Square trains nothing anew: its digest is another one."""
    training, evaluation = fingerprint("cpu", 1), fingerprint("cpu", 1, evaluation=True)
    assert training["code"] == code_digest()
    assert training["code"] != evaluation["code"]
    assert fingerprint("cpu", 2) != training

"""The command line in this process, as tests ask it."""

from typer.testing import CliRunner, Result

from pipelines.cli import app


def generalist(*words: str) -> Result:
    """Return what `generalist WORDS` says and how it ends."""
    return CliRunner().invoke(app, list(words))


def refused(*words: str) -> str:
    """Return the one sentence with which `generalist WORDS` refuses wrong input."""
    result = generalist(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (sentence,) = result.stderr.splitlines()
    return sentence

"""A whole run that is ended: within seconds, leaving nothing, and to be gone on with to the same bits."""

from pathlib import Path

import pytest

from tests.ends import Project, ended
from tests.services import with_databases

pytestmark = pytest.mark.long
ENDS_WITHIN = 30.0  # seconds, on a busy machine; eight are asked on an idle one, which `python -m tests.ends` measures


def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """In the evaluation; `python -m tests.ends` ends runs at random moments, by other signals, too."""
    project = Project(tmp_path / "project")
    with_databases(project.folder, pytestconfig)
    whole, expected = project.finish(), project.bits()
    end = ended(project, expected, "SIGTERM", 0.7 * whole)
    assert end.is_right, end
    assert end.seconds < ENDS_WITHIN, end

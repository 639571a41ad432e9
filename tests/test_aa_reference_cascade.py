"""The standard cascade against the original's, on every third network and threat that it was run on.

`benchmarks/autoattack_agreement.py` has all of them.
"""

import pytest

from benchmarks.autoattack_agreement import jobs, judge, verdict
from tests import aa_reference

pytestmark = pytest.mark.long

HALF = slice(None, None, 2)  # of the images: verdicts are of one at a time
QUERIES = 500  # of Square, which finds next to nothing after the others; `benchmarks/autoattack_agreement.py` has all


def test_no_weaker_than_the_original_in_any_configuration_nor_over_these():
    """Few images that it alone broke, not significantly more over all, and none of those that each of its runs broke."""
    aa_reference.folder()
    rows = [judge(job, QUERIES, HALF) for job in [job for job in jobs() if job.kind == "standard"][::3]]
    assert len(rows) >= 5
    assert all(verdict(rows).values()), [row for row in rows if not row.holds or row.core_missed]

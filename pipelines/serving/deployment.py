"""The deployments of training, searching and comparing: run as a module with the name of one, it serves it.

python -m pipelines.serving.deployment train
"""

import http.client
import json
import sys
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.orchestration.server_auth import proof
from pipelines.workspace import Workspace

DEPLOYMENTS = {"train": "generalist", "search": "generalist-tune", "compare": "generalist-compare"}
"""Flows by their deployments."""
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError)
_UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]


def polled_since(api: str, since: datetime) -> bool:
    """Return whether something has asked for runs of each deployment since then: they are being served."""
    try:
        polled = [
            _request(f"{api}/deployments/name/{flow}/{name}")["last_polled"] for name, flow in DEPLOYMENTS.items()
        ]
    except _NO_ANSWER:
        return False
    return all(when is not None and datetime.fromisoformat(when) > since for when in polled)


def abandon_runs(api: str) -> bool:
    """Mark runs that are under way as crashed, since they end with their service, and say whether there were any.

    Otherwise Prefect would show them as running for ever.
    """
    state = {"type": "CRASHED", "name": "Crashed", "message": "generalist serve was ended"}
    client = str(uuid.uuid4())
    wanted = {
        "deployments": {"name": {"any_": list(DEPLOYMENTS)}},
        "flow_runs": {"state": {"type": {"any_": _UNDER_WAY}}},
    }
    try:
        token = _request(f"{api}/csrf-token?client={client}")["token"]
        proof = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
        runs = _request(f"{api}/flow_runs/filter", wanted, proof)
        for run in runs:
            _request(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True}, proof)
    except _NO_ANSWER:  # the server has ended, or can't any more; so do we
        return False
    return bool(runs)


def _request(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310  an address of ours
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **proof(), **(headers or {})},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310  as above
        return json.load(answer)


def main(name: str) -> None:
    """Serve a deployment until SIGTERM."""
    from prefect import Flow
    from prefect.types.entrypoint import EntrypointType

    from pipelines.comparison_flow import comparison_flow
    from pipelines.flows import generalist_flow
    from pipelines.orchestration.flow_runs import end_dead
    from pipelines.search_flow import search_flow

    flows: dict[str, tuple[Flow[..., Any], str]] = {
        "train": (generalist_flow, "Train experts, mix them into a global learner, evaluate, export and register it."),
        "search": (search_flow, "Search the declared space for the best trade-off."),
        "compare": (comparison_flow, "Train presets under several seeds, and draw the front."),
    }
    served, what = flows[name]
    end_dead(Workspace.find(), deployments=[name])
    # Runs start as children with the flow pickled, so a refusal is told in its one sentence; Prefect's engine,
    # which `prefect.serve` would start, adds a traceback to every failure.
    served.serve(
        name,
        description=what,
        entrypoint_type=EntrypointType.MODULE_PATH,  # the flow as installed, wherever this runs
        pause_on_shutdown=False,  # it has no schedule
        print_starting_message=False,
        limit=1,  # two trainings at once only slow each other down
    )


if __name__ == "__main__":
    main(sys.argv[1])

"""The deployment `generalist/train`: run as a module, it serves it; and what can be asked about it."""

import json
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_FLOW, _DEPLOYMENT = "generalist", "train"
_UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]


def polled_since(api: str, since: datetime) -> bool:
    """Whether something has asked for runs of the deployment since then: it is being served."""
    try:
        polled = _asked(f"{api}/deployments/name/{_FLOW}/{_DEPLOYMENT}")["last_polled"]
    except OSError:
        return False
    return polled is not None and datetime.fromisoformat(polled) > since


def abandon_runs(api: str) -> bool:
    """Mark runs that are under way as crashed, since they end with their service, and say whether there were any.

    Otherwise Prefect would show them as running for ever.
    """
    state = {"type": "CRASHED", "name": "Crashed", "message": "generalist serve was ended"}
    client = str(uuid.uuid4())
    wanted = {
        "deployments": {"name": {"any_": [_DEPLOYMENT]}},
        "flow_runs": {"state": {"type": {"any_": _UNDER_WAY}}},
    }
    try:
        token = _asked(f"{api}/csrf-token?client={client}")["token"]
        proof = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
        runs = _asked(f"{api}/flow_runs/filter", wanted, proof)
        for run in runs:
            _asked(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True}, proof)
    except OSError:  # the server has ended; so do we
        return False
    return bool(runs)


def _asked(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310  an address of ours
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310  as above
        return json.load(answer)


def main() -> None:
    """Serve the deployment until SIGTERM."""
    from prefect.types.entrypoint import EntrypointType

    from pipelines.flows import generalist_flow

    # Runs start as children with the flow pickled, so a refusal is told in its one sentence; Prefect's engine,
    # which `prefect.serve` would start, adds a traceback to every failure.
    generalist_flow.serve(
        _DEPLOYMENT,
        description="Train experts, mix them into a global learner, evaluate, export and register it.",
        entrypoint_type=EntrypointType.MODULE_PATH,  # the flow as installed, wherever this runs
        pause_on_shutdown=False,  # it has no schedule
        print_starting_message=False,
        limit=1,  # two trainings at once only slow each other down
    )


if __name__ == "__main__":
    main()

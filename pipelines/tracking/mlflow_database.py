"""The connection to MLflow: its database is made whole or not at all, and nothing depends on global state."""

import http.client
import logging
import urllib.error
import urllib.request
from contextlib import chdir
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from generalist.atomic_files import partial_name, rename
from generalist.errors import BadInput
from generalist.masking import masked, masked_address, without_login
from generalist.untrusted import open_regular, printable, with_timeout
from pipelines.database_errors import check_database, connect_once, sentence
from pipelines.workspace import Workspace

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each migration and each new version
# It tells a database's failures with tracebacks, and raises them: our sentence is enough.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

EXPERIMENT = "generalist"
_SQLITE = b"SQLite format 3\0"
_PATIENCE = 5.0  # seconds for a server's first answer; MLflow's own retries go on for minutes


def migrate(workspace: Workspace) -> None:
    """Make the tracking database where it is a SQLite file that does not exist yet; takes some seconds then.

    MLflow makes it in many steps, and one that was stopped between them can never be opened again. So it is made
    under a temporary name, and is there whole or not at all.

    Raises:
        BadInput: the file is not a database, its folder can't be written, or a server or database doesn't answer.
    """
    database, uri = workspace.tracking_database, workspace.tracking_uri
    if database is None:
        (_check_that_it_answers if has_server(uri) else _check_that_it_connects)(uri)
        return
    if _is_made(database):
        return
    with workspace.one_at_a_time("migrate"):
        if _is_made(database):  # another process was faster
            return
        _make(database, workspace.artifacts)


def connect(workspace: Workspace) -> MlflowClient:
    """Return a client for the workspace's tracking server or database; threads may share it.

    Raises:
        BadInput: the server does not answer, or the database can't be opened or written.
    """
    migrate(workspace)
    if (database := workspace.tracking_database) is not None:
        check_database(database)
    uri = workspace.tracking_uri
    try:
        return MlflowClient(tracking_uri=uri)
    except (MlflowException, SQLAlchemyError) as error:
        if known := sentence(error, shown(uri)):
            raise BadInput(known) from None
        reason, address = masked(str(error).splitlines()[0].partition(". ")[0], of=uri), shown(uri)
        raise BadInput(
            f"MLflow can't open {address} ({reason}): if an older MLflow made it, run `mlflow db upgrade {address}`,"
            " else move it away"
        ) from None


def experiment_id(workspace: Workspace, client: MlflowClient) -> str:
    """Return the experiment that all runs belong to; it is made where there is none.

    Raises:
        BadInput: it was deleted in MLflow, or belongs to a project in another folder.
    """
    artifacts = None if has_server(workspace.tracking_uri) else str(workspace.artifacts)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
        except MlflowException:
            experiment = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise BadInput(
            f"MLflow's experiment '{EXPERIMENT}' was deleted: run"
            f" `mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    in_project = workspace.tracking_database == workspace.root / "mlflow.db"
    if in_project and experiment.artifact_location != artifacts:
        raise BadInput(
            f"{workspace.tracking_database} belongs to the project in {Path(experiment.artifact_location).parent},"
            " where its runs keep their files: run `generalist relocate` to take runs and registry along, or move"
            " mlflow.db and mlruns/ away to start afresh"
        )
    return str(experiment.experiment_id)


def has_server(uri: str) -> bool:
    """Return whether an address is that of a server, which also decides where files are kept."""
    return uri.startswith(("http://", "https://"))


def runs_page(uri: str, experiment: str) -> str:
    """Return the address of the page on which a server lists an experiment's runs; the page of a run is below it."""
    return f"{without_login(uri).rstrip('/')}/#/experiments/{experiment}/runs"


def _is_made(database: Path) -> bool:
    """Return whether the file is there; an empty one is none."""
    try:
        with open_regular(database) as file:
            start = file.read(len(_SQLITE))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadInput(f"{database} can't be read ({error.strerror}): it must be MLflow's SQLite file") from None
    if start and start != _SQLITE:  # MLflow would try again and again, for minutes
        raise BadInput(f"{database} is not an SQLite database: move it away, or set MLFLOW_TRACKING_URI to another")
    return bool(start)


def _make(database: Path, artifacts: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with partial_name(database) as making:
            making.touch()
            with chdir(artifacts.parent):  # MLflow's own experiment keeps its files below the current folder
                MlflowClient(tracking_uri=f"sqlite:///{making}")  # which makes an empty one whole
            rename(making, database)
    except OSError as error:
        raise BadInput(
            f"MLflow's database can't be made in {database.parent} ({error.strerror}): make that folder writable"
        ) from None


def _check_that_it_answers(uri: str) -> None:
    def ask() -> None:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PATIENCE):  # noqa: S310  http or https
            pass

    try:
        with_timeout(_PATIENCE, ask)
    except urllib.error.HTTPError:
        pass  # it answers, if only to ask who we are
    except (OSError, ValueError, http.client.HTTPException):
        raise BadInput(f"no MLflow server answers at {shown(uri)}: start it, or unset MLFLOW_TRACKING_URI") from None


def _check_that_it_connects(uri: str) -> None:
    """Ask a database once; MLflow asks again and again, for a minute and a half."""
    try:
        connect_once(uri)
    except ImportError as error:
        raise BadInput(
            f"MLflow can't open {shown(uri)} without a driver ({masked(error, of=uri)}): install it, or unset"
            " MLFLOW_TRACKING_URI"
        ) from None
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise BadInput(
            f"MLFLOW_TRACKING_URI is {shown(uri)}, which is no address of a server or database: use"
            " sqlite:///mlflow.db or a server's address, or unset it"
        ) from None
    except (OSError, SQLAlchemyError) as error:
        reason = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
        message = printable(masked(" ".join(str(reason).split()), of=uri))[:200]
        raise BadInput(
            f"MLflow's database {shown(uri)} can't be reached ({message}): start it, check its address and your access"
            " to it, or unset MLFLOW_TRACKING_URI"
        ) from None


def shown(uri: str) -> str:
    """Return an address without its password, in one line."""
    return printable(masked_address(uri))

"""No password of an address in what is printed, kept or told, however it is written."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from generalist.errors import BadInput
from generalist.masking import masked, masked_address, without_login
from generalist.store import Remote
from pipelines.cli.shell import same_command
from pipelines.end_with_parent import Child
from pipelines.tracking import trial_metadata
from pipelines.tracking.mlflow_database import shown
from pipelines.tuning import storage
from tests.command_line import refused
from tests.services import environment

SECRET = "Zq7w"
PIECES = st.sampled_from([SECRET, "@", ":", "/", "%40", "%2F", "'", '"', "$", "#", "?", "&", "=", ";", "é", "+", "//"])
PASSWORDS = st.lists(PIECES, min_size=1, max_size=6).map(lambda own: SECRET + "".join(own))
QUERIES = st.sampled_from(
    ["password", "token", "sslpassword", "access_token", "api-key", "X-Amz-Signature", "p%61ssword"]
)


@st.composite
def addresses(draw: st.DrawFn, *, spaces: bool = False) -> str:
    """Addresses with a secret: before the host, after the question mark, or both; sometimes encoded."""
    password = draw(PASSWORDS)
    if draw(st.booleans()):
        password = quote(password, safe="")
    if spaces:
        password = password.replace("é", " ")
    login = draw(st.sampled_from([f"me:{password}@", f"{password}@", f":{password}@", ""]))
    value = quote_plus(SECRET + draw(PASSWORDS))
    query = f"?a=1&{draw(QUERIES)}={value}&b=2" if not login or draw(st.booleans()) else ""
    scheme = draw(st.sampled_from(["postgresql", "postgresql+psycopg", "http", "https", "s3", "simplecache::ftp"]))
    return f"{scheme}://{login}db.example:5432/name{query}"


@given(addresses())
@example("postgresql://me:Zq7w@Zq7w@host/db")
@example("redis://:Zq7w@host/db")
def test_no_password_in_a_sentence(address: str) -> None:
    """Beside what is told of the address, which is left as it is."""
    for told in (masked(f"no answer from {address}: ask"), str(BadInput(f"no answer from {address}: ask"))):
        assert SECRET not in told
        assert told.startswith("no answer from ") and told.endswith((": ask", "b=2: ask"))
        assert "db.example" in told or "@" not in address or "host" in address
    assert SECRET not in masked(masked(address))


@given(addresses(spaces=True))
def test_no_password_in_an_address_or_a_command(address: str) -> None:
    """With spaces in it, too: in a command that is told again, and in what each reader of addresses shows."""
    before, sys.argv = sys.argv, ["generalist", "tune", "--storage", address, f"--storage={address}", "--set", "seed=3"]
    try:
        command = same_command()
    finally:
        sys.argv = before
    for told in (command, shown(address), storage.shown(address), masked_address(address), without_login(address)):
        assert SECRET not in told
    assert command.startswith("generalist tune --storage ") and command.endswith(" --set seed=3")


@given(addresses())
def test_nothing_of_a_password_in_what_a_library_says(address: str) -> None:
    """Which may have taken another @ for the last one, or have decoded it."""
    login = address.partition("//")[2].rpartition("@")[0]
    host, _, rest = login.partition("@")
    for said in (f"could not translate host name {rest!r}", f"user {host.partition(':')[2]!r} is unknown"):
        assert SECRET not in masked(said, of=address)


@pytest.mark.parametrize(
    "text",
    [
        "models:/generalist@champion",
        "mail me@example.org",
        "see https://host/a/b?run=3&view=x#/experiments/1",
        "results in a/b/c, and a@b",
        "sqlite:///mlflow.db",
        "linf:8/255",
        "",
    ],
)
def test_what_hides_nothing_is_left_as_it_is(text: str) -> None:
    """No login, no secret."""
    assert masked(text) == masked_address(text) == str(BadInput(text)) == text


def test_links_are_for_whoever_has_a_login() -> None:
    """They can be followed."""
    assert without_login("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_login("http://host/x") == "http://host/x"


@pytest.mark.parametrize(
    "login", [f"me:{SECRET}@", f"me:{SECRET}@{SECRET}@", f"{SECRET}%40{SECRET}@", f"me:{SECRET}/x@"]
)
def test_commands_tell_no_password(login: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of storages, stores, MLflow and addresses that lack their beginning."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    for address in (f"postgresql://{login}127.0.0.1:1/x", f"nonsense://{login}127.0.0.1:1/x?password={SECRET}"):
        assert SECRET not in refused("tune", "--preset", "digits", "--storage", address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert SECRET not in refused("rollback", "--name", "x")
        monkeypatch.setenv("GENERALIST_STORE", address)
        assert SECRET not in refused("store", "list")
    for address in (f"{login}host/db", f"http://{login}127.0.0.1:1", f"file://{login}x"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert SECRET not in refused("rollback", "--name", "x")
    with pytest.raises(BadInput) as told:
        Remote(f"ftp://{login}127.0.0.1:1/x")
    assert SECRET not in str(told.value)


def test_what_is_kept_has_no_password(tmp_path: Path) -> None:
    """Params and tags of trials, and the last words of a worker that died."""
    address = f"postgresql://me:{SECRET}@host/db"
    (tmp_path / "dies.py").write_text(f"print('first')\nprint(\"OperationalError: can't reach {address}\")\n", "utf-8")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    child = Child("worker", ["dies"], {**os.environ, "PYTHONPATH": paths}, tmp_path / "log")
    assert child.wait() == 0
    assert child.last_log_line() == "OperationalError: can't reach postgresql://…@host/db"
    from pipelines.trial_records import TrialRecord

    trial = TrialRecord(number=0, state="failed", params={"data.path": address}, reason=f"no {address}")
    assert SECRET not in str(trial_metadata.params(trial)) + str(trial_metadata.tags(trial))


def test_a_command_that_is_stopped_repeats_no_password(tmp_path: Path) -> None:
    """The line that tells how to go on."""
    program = (
        "import sys; from pipelines.cli.shell import going_on, same_command\n"
        "with going_on(same_command()): raise KeyboardInterrupt"
    )
    address = f"postgresql://me:{SECRET} x@host/db"
    done = subprocess.run(
        [sys.executable, "-c", program, "tune", "--storage", address],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "go on with: generalist tune --storage 'postgresql://…@host/db'" in done.stderr
    assert SECRET not in done.stdout + done.stderr

"""An evaluation that was killed goes on where it was, and one of another kind does not take its place."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist.attacks import (
    VERSIONS,
    AttackProgress,
    AutoAttackResult,
    attack_ensemble,
    autoattack,
    fixed_batches,
    resume,
)
from generalist.attacks.resume import StateFile
from generalist.errors import BadInput
from generalist.store import write_tensors
from generalist.threats import Threat
from tests import killed_cascades
from tests.cascade_bits import everything
from tests.killed_cascades import DEATHS, SHORT, TILE, dying_after, evaluation
from tests.strategies import Recorder, conv_net, problem

pytestmark = pytest.mark.long

NETWORK, IMAGES, LABELS = problem(12)
THREAT = Threat("linf", 0.06)
QUICK: dict[str, Any] = {"attacks": ["square"], "square_queries": 4}


@pytest.fixture
def by_batches(monkeypatch):
    """Few steps, few images at a time, and a state after each batch."""
    monkeypatch.setitem(VERSIONS, "plus", SHORT)
    monkeypatch.setattr(fixed_batches, "_TILE", TILE)
    monkeypatch.setattr(attack_ensemble, "StateFile", functools.partial(StateFile, every=0.0))


def batches(**changed: Any) -> tuple[AutoAttackResult, int]:
    """Return a result, and how many batches it took."""
    watched: list[AttackProgress] = []
    result = evaluation(watch=watched.append, **changed)
    return result, sum(1 for standing in watched if standing.images)


@functools.cache
def uninterrupted() -> tuple[AutoAttackResult, int]:
    """Return a run that nobody kills; for a test with `by_batches`."""
    return batches()


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """The states of evaluations that were killed in each life but the last, and how many lives they had."""
    folder = tmp_path_factory.mktemp("killed")
    program = [sys.executable, "-W", "ignore", "-m", "tests.killed_cascades", str(folder)]
    done = subprocess.run(program, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, dict(zip(DEATHS, map(int, done.stdout.split()), strict=True))


@pytest.mark.parametrize("death", DEATHS)
def test_killed_again_and_again_it_ends_with_the_same_bits(death, killed, by_batches):
    """`kill -9` in each life; verdicts, points, passes and flags are those of a run that was left alone."""
    whole, count = uninterrupted()
    assert count > 15 and {"clean", "apgd-ce", None} <= set(whole.fooled_by)
    folder, lives = killed
    fewest = {"after a batch": count + 1, "in a pass": 3, "while a state is written": count // 2}
    assert fewest[death] <= lives[death] <= count + 1
    # A function is known by its answers alone, as it is another one in each life.
    known = {"network": lambda images: killed_cascades.NETWORK(images)} if death == "in a pass" else {}
    again, more = batches(state=folder / death, **known)
    assert more == 0 and everything(again) == everything(whole)


@pytest.mark.parametrize("after", [2, 11])
def test_what_was_done_is_not_done_again(after, by_batches, tmp_path):
    """From any batch on, also when batches are of another size from there on: they change no verdict."""
    state = tmp_path / "state.safetensors"
    whole, count = uninterrupted()

    def stop(standing: AttackProgress) -> None:
        watched.append(standing)
        if sum(1 for own in watched if own.images) == after:
            raise KeyboardInterrupt

    watched: list[AttackProgress] = []
    with pytest.raises(KeyboardInterrupt):
        evaluation(state=state, watch=stop)
    larger = tmp_path / "larger batches.safetensors"
    larger.write_bytes(state.read_bytes())
    result, rest = batches(state=state)
    assert rest == count - after and everything(result) == everything(whole)
    result, rest = batches(state=larger, batch_size=3 * TILE)
    assert rest <= count - after and everything(result) == everything(whole)


def test_a_finished_state_is_a_result(by_batches, tmp_path):
    """The model answers once more, to show that it is the same; nothing is attacked."""
    asked = Recorder(killed_cascades.NETWORK)
    whole, _ = uninterrupted()
    evaluation(asked, state=tmp_path / "state.safetensors")
    asked.seen.clear()
    again = evaluation(asked, state=tmp_path / "state.safetensors")
    assert everything(again) == everything(whole)
    assert torch.equal(torch.cat(asked.seen), killed_cascades.IMAGES)


def test_states_are_written_now_and_then(monkeypatch, tmp_path):
    """Not after each batch, as a state is as large as the images: before the work and when all is done."""
    written = []
    monkeypatch.setattr(resume, "write_tensors", lambda path, *_: written.append(path))
    monkeypatch.setattr(fixed_batches, "_TILE", TILE)
    evaluate(tmp_path / "state")
    assert written == 2 * [tmp_path / "state"]


# Whose a state is.


def evaluate(state: Path, **changed: Any) -> AutoAttackResult:
    """Something short, of which some arguments may be changed."""
    own = {"model": NETWORK, "images": IMAGES, "labels": LABELS, "threat": THREAT, **QUICK, **changed}
    first = [own.pop(name) for name in ("model", "images", "labels", "threat")]
    return autoattack(*first, state=state, **own)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    """That of a finished evaluation."""
    path = tmp_path_factory.mktemp("evaluation") / "state.safetensors"
    evaluate(path, views={"itself": NETWORK})
    return path


def nudged(images: torch.Tensor) -> torch.Tensor:
    """One pixel moves by the last bit."""
    images = images.clone()
    images[5, 0, 2, 3] = torch.nextafter(images[5, 0, 2, 3], torch.tensor(0.5))
    return images


def other_label(labels: torch.Tensor) -> torch.Tensor:
    """One image is said to be of another class."""
    labels = labels.clone()
    labels[5] = (labels[5] + 1) % 4
    return labels


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": conv_net((1, 6, 6), seed=1)}, "another model:"),
        ({"model": lambda images: NETWORK(images)}, "another model:"),
        ({"views": {}}, "another model:"),
        ({"views": {"itself": conv_net((1, 6, 6), seed=1)}}, "another model:"),
        ({"labels": other_label(LABELS)}, "another data:"),
        ({"images": IMAGES[:-1], "labels": LABELS[:-1]}, "another model and another data:"),
        ({"threat": Threat("linf", 0.061)}, "another threat:"),
        ({"threat": Threat("l2", 0.06)}, "another threat:"),
        ({"attacks": ["square", "apgd-ce"]}, "another set of attacks:"),
        ({"version": "quick"}, "another set of attacks:"),
        ({"square_queries": 5}, "another set of attacks:"),
        ({"precision": "bfloat16"}, "another set of attacks:"),
        ({"seed": 1}, "another seed:"),
        ({"seed": 1, "threat": Threat("l1", 0.06)}, "another threat and another seed:"),
    ],
)
def test_the_state_of_another_evaluation_is_refused(changed, named, state):
    """With what differs, before any attack; and the state stays as it is."""
    content = state.read_bytes()
    with pytest.raises(BadInput, match=f"belongs to an evaluation with {named} delete it to begin anew"):
        evaluate(state, **{"views": {"itself": NETWORK}, **changed})
    assert state.read_bytes() == content


def test_the_last_bit_of_a_pixel_makes_other_data(state):
    """Whether or not the model's answers change by it."""
    with pytest.raises(BadInput, match="another data"):
        evaluate(state, images=nudged(IMAGES), views={"itself": NETWORK})


def test_the_state_of_other_code_is_refused(monkeypatch, state):
    """Attacks that were mended since would not have given these verdicts."""
    monkeypatch.setattr(resume, "evaluation_code", lambda _: "0" * 64)
    with pytest.raises(BadInput, match="with another code: delete it"):
        evaluate(state, views={"itself": NETWORK})


def test_the_same_evaluation_said_otherwise_is_not_refused(state):
    """By batches of another size, in training mode, and with copies of the same images."""
    before = evaluate(state, views={"itself": NETWORK})
    NETWORK.train()
    try:
        again = evaluate(state, images=IMAGES.clone(), batch_size=3, views={"itself": NETWORK})
    finally:
        NETWORK.eval()
    assert everything(again) == everything(before)


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_a_truncated_state_is_refused(length, state, tmp_path):
    """With how to go on."""
    cut = tmp_path / "state.safetensors"
    cut.write_bytes(state.read_bytes()[:length])
    with pytest.raises(BadInput, match=r"is damaged .*: delete it, and the evaluation begins anew"):
        evaluate(cut, views={"itself": NETWORK})


def test_a_changed_byte_of_a_tensor_is_refused(state, tmp_path):
    """A verdict would be another one."""
    whole = state.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    changed = tmp_path / "state.safetensors"
    for place in (header, (header + len(whole)) // 2, len(whole) - 1):
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BadInput, match="is damaged"):
            evaluate(changed, views={"itself": NETWORK})


def test_a_file_of_another_kind_is_refused(tmp_path):
    """A text, and a state of something else."""
    file = tmp_path / "state.safetensors"
    file.write_text("robust: all of them")
    with pytest.raises(BadInput, match="is damaged"):
        evaluate(file)
    write_tensors(file, {"weight": torch.zeros(3)}, {"epoch": 3})
    with pytest.raises(BadInput, match="holds no state of an evaluation: name another file"):
        evaluate(file)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """As a state that was asked for is worth nothing if it is not kept."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't be written"):
        evaluate(tmp_path / "file" / "state.safetensors")


def test_the_function_that_kills_lets_calls_through_before():
    """Else no test above would have seen a second batch."""
    assert [dying_after(2, abs)(-1) for _ in range(2)] == [1, 1]

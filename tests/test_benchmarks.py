"""The benchmarks run at tiny size and write what they promise; what they compare does the same work."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_results, gpu_verdicts, overhead
from benchmarks.counting import iteration, training_pass
from benchmarks.sides import CASES, Ours, batch_of, difference, naive_side
from generalist.config import load
from generalist.store import tensors_digest
from tests import training_factory

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
SCRIPTS = ("gpu_short.sh", "gpu_train.sh", "gpu_attack.sh")
BEYOND_THE_LIBRARY = ("pipelines", "prefect", "mlflow", "dvc", "onnx", "onnxruntime", "optuna", "matplotlib")


def read(file: Path) -> dict[str, Any]:
    """Return what a benchmark wrote as JSON."""
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert "ratios" in result
    return result


def script(name: str, *words: str, out: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script on a machine that has nothing but what the library needs."""
    lacking = out.parent / "lacking"
    lacking.mkdir(exist_ok=True)
    for module in BEYOND_THE_LIBRARY:
        (lacking / f"{module}.py").write_text("raise ImportError('not on this machine')\n", encoding="utf-8")
    settings = {"OUT": str(out), "WORK": str(out.parent / "work"), "PYTHON": sys.executable}
    return subprocess.run(
        ["benchmarks/" + name, *words],
        cwd=ROOT,
        env=os.environ | settings | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(lacking)} | more,
        capture_output=True,
        text=True,
        check=False,
    )


def test_training_step_has_the_promised_cases() -> None:
    """The keys that other programs read."""
    assert set(CASES) == {"digits", "resnet18_float32", "resnet18_bf16_attack", "resnet18_bf16"}


def test_a_cut_attack_counts_as_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step is made of parts, its attack counts as many times as it has iterations, and averages once."""
    ours = Ours(CASES["digits"], CPU, "engine.eager=true")
    side = ours.side(batch_of(CASES["digits"].shape, 2, CPU), 1)
    monkeypatch.setattr("benchmarks.sides.seconds", lambda *_: 0.001)
    spent = side.timed(CPU, whole=False)
    assert spent == pytest.approx({"attack": 5, "natural": 1, "training pass": 1, "averages": 1, "step": 7})


def test_the_naive_loop_trains_as_ours_does() -> None:
    """A natural step of the naive loop leads to the weights of ours: what is compared is the same work."""
    case = CASES["digits"]
    ours, batch = Ours(case, CPU), batch_of(case.shape, 16, CPU)
    naive = naive_side(ours, batch, None)
    naive.parts["natural"]()
    ours.natural.step(batch, 500, 3)
    network = naive.parts["averages"].__self__.natural  # type: ignore[attr-defined]
    for name, weights in network.state_dict().items():
        torch.testing.assert_close(weights, ours.natural.weights[name], msg=name)


def test_fast_gradients_are_the_plain_ones() -> None:
    """The measured difference is rounding where nothing but the way differs."""
    case = CASES["digits"]
    relative, signs = difference(Ours(case, CPU), Ours(case, CPU, "engine.eager=true"), batch_of(case.shape, 8, CPU))
    assert relative < 1e-4 and signs > 0.999


def test_counted_work_of_resnet18() -> None:
    """A forward pass is 1.11 GFLOP an image, an attack iteration two, a training pass three less the images' gradient."""
    case, stem = CASES["resnet18_float32"], 2 * 64 * 3 * 9 * 32 * 32
    attack, trained = (count(case, 2, bytes_each=2) for count in (iteration, training_pass))
    assert attack.flops / 2 == pytest.approx(2 * 1.11e9, rel=0.01)
    assert trained.flops == 1.5 * attack.flops - 2 * stem
    assert attack.fused < attack.unfused
    assert iteration(case, 2, bytes_each=4).fused == 2 * attack.fused


def test_the_bare_loop_is_the_training(tmp_path: Path) -> None:
    """What overhead is measured against comes to the same bits as the training through the store."""
    config, dataset = training_factory.small("training.epochs=4"), training_factory.digits(tmp_path / "data")
    _, outcome = training_factory.finish(config, dataset, tmp_path / "store")
    loop = overhead.bare(config, dataset)
    assert {name: tensors_digest(own) for name, own in loop.learners.items()} == {
        name: digest for name, digest in training_factory.digests(outcome).items() if name in loop.learners
    }
    assert set(loop.learners) == set(config.experts) and loop.seconds > 0 < loop.validation


def test_the_bare_loop_refuses_what_it_is_not(tmp_path: Path) -> None:
    """Experts that meet between steps are not trained by it."""
    config = training_factory.small("mixing.interval={steps: 1}")
    with pytest.raises(ValueError, match="in epochs"):
        overhead.bare(config, training_factory.digits(tmp_path / "data"))


def test_overhead_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overhead is what the pipeline takes beyond its evaluation and the bare loop, and its parts are all of it."""
    monkeypatch.setattr(overhead, "project", lambda *_: None)
    monkeypatch.setattr(overhead, "pipeline", lambda _: overhead.Whole(100.0, 30.0, before=10.0, after=40.0, cpu=90.0))
    words = ["--quick", "--set", "training.epochs=2", "--set", "mixing.warm_up=1", "--json", str(tmp_path / "a.json")]
    overhead.main(words)
    result = read(tmp_path / "a.json")
    spent = result["seconds"]
    assert spent["overhead"] == pytest.approx(70 - spent["bare training loop"])
    assert spent["overhead"] == pytest.approx(sum(own for name, own in spent.items() if name.startswith("- ")))
    assert result["ratios"]["share_of_ten_minutes"] == pytest.approx(spent["overhead"] / 600)


def test_a_project_is_copied_with_its_configuration(tmp_path: Path) -> None:
    """The copy is a repository of its own with nothing to commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    overhead.project(tmp_path, load(preset="digits", overrides=["training.epochs=30"]))
    assert load(tmp_path / "params.yaml").training.epochs == 30
    assert (tmp_path / "generalist" / "experts.py").is_file()
    status = ["git", "status", "--porcelain"]
    assert subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == ""


def test_split_files_join(tmp_path: Path) -> None:
    """Parts are as small as asked for, join to the file, and replace older ones."""
    whole, content = tmp_path / "w.safetensors", bytes(range(256)) * 10
    whole.write_bytes(content)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "w.safetensors.part09").write_bytes(b"old")
    parts = gpu_results.split(whole, tmp_path / "out", largest=1000)
    assert [part.stat().st_size for part in parts] == [1000, 1000, 560]
    assert sorted((tmp_path / "out").iterdir()) == parts
    assert b"".join(part.read_bytes() for part in parts) == content


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_explain_themselves(name: str, tmp_path: Path) -> None:
    """--help tells the usage, and unknown words are refused with it."""
    assert script(name, "--help", out=tmp_path / "out").stdout.startswith(f"usage: benchmarks/{name}")
    refused = script(name, "--unknown", out=tmp_path / "out")
    assert refused.returncode == 2 and refused.stderr.startswith("usage:")


def test_a_piece_says_that_there_is_more_to_do(tmp_path: Path) -> None:
    """`gpu_train.sh` ends with 3 like the training that it calls, and leaves no results."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *generalist.training*) exit 3;; esac\n', encoding="utf-8")
    python.chmod(0o755)
    piece = script("gpu_train.sh", "--tiny", out=tmp_path / "out", PYTHON=str(python))
    assert piece.returncode == 3 and "run the same command again" in piece.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_a_training_then_its_attack_in_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing but the library's packages; shards in pieces merge to one evaluation.

    The weights are kept in WORK, so that the folder of the results may be emptied meanwhile; without any, the attack
    says what to do.
    """
    out = tmp_path / "out"
    none = script("gpu_attack.sh", "--tiny", "0", "5", out=out)
    assert none.returncode == 2 and "run benchmarks/gpu_train.sh first" in none.stderr
    done = script("gpu_train.sh", "--tiny", out=out)
    assert done.returncode == 0, done.stderr
    assert (out / "table.md").read_text(encoding="utf-8").startswith("| digits |")
    assert read(out / "training.json")["ratios"]["of_peak"] > 0
    for file in out.iterdir():
        file.unlink()
    shard = script("gpu_attack.sh", "--tiny", "0", "20", out=out)
    assert shard.returncode == 0, shard.stderr

    rest = ["attack", "20", "30", "--preset", "digits", "-S", "evaluation.attack=quick"]
    rest += ["-S", "evaluation.square_queries=10", "--weights", str(out.parent / "work" / "weights-digits.safetensors")]
    rest += [
        "--data",
        str(out.parent / "work" / "data-digits"),
        "--out",
        str(out),
        "--states",
        str(tmp_path / "states"),
    ]
    assert gpu_verdicts.main([*rest, "--seconds", "0"]) == gpu_verdicts.TO_BE_CONTINUED
    assert gpu_verdicts.main(rest) == 0
    file = tmp_path / "merged.json"
    assert gpu_verdicts.main(["merge", *map(str, sorted(out.glob("verdicts-*.npz"))), "--json", str(file)]) == 0
    merged = read(file)
    assert merged["n"] == 30
    assert merged["ratios"]["robust"] <= merged["ratios"]["natural"]
    assert gpu_verdicts.main([*rest[:1], "20", "9999", *rest[3:]]) == 2
    assert "no range among" in capsys.readouterr().err

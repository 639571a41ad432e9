"""The short GPU script: what it says, that it loses no figure, and that its CUDA paths measure what they should."""

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from benchmarks import cifar10_files, compiler_cache, gpu_accuracy, gpu_learning, gpu_packages, gpu_short
from benchmarks.gpu_bench import Bench, LateError, WaitingError, device_name
from benchmarks.gpu_fast_ways import fastest, graph_part, training_pass
from benchmarks.gpu_learning import Training, train_part
from benchmarks.gpu_part import MEASURES, measured
from benchmarks.gpu_parts import deterministic_cost
from benchmarks.gpu_record import COMPLETE, FAILED, FILE, MORE, WAITS, Record, flat
from benchmarks.roofline import Peaks
from benchmarks.sides import RGB, Case, Ours, batch_of
from generalist.attacks import AttackProgress
from generalist.config import load
from generalist.data import load as load_data
from generalist.engine import fallback
from generalist.engine.cuda_graphs import GraphCache
from generalist.engine.cuda_graphs import Record as RecordWork
from tests.test_cuda_graphs import rerun
from tests.test_data_official import stand_in

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
UNNEEDED = ("pipelines", "prefect", "mlflow", "dvc", "onnxruntime", "optuna", "matplotlib", "beartype")
PARTS = ["machine", "step", "graph", "compile", "throughput", "train"]


def settings(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a machine that has nothing but what the library needs, with OUT and WORK in a folder."""
    lacking = folder / "lacking"
    lacking.mkdir(exist_ok=True)
    for module in UNNEEDED:
        (lacking / f"{module}.py").write_text("raise ImportError('not on this machine')\n", encoding="utf-8")
    own = {"OUT": str(folder / "out"), "WORK": str(folder / "work"), "PYTHON": sys.executable}
    return os.environ | own | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(lacking)} | more


def script(*words: str, folder: Path, name: str = "gpu_short.sh", **more: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script there."""
    return subprocess.run(
        ["benchmarks/" + name, *words],
        cwd=ROOT,
        env=settings(folder, **more),
        capture_output=True,
        text=True,
        check=False,
    )


def change_start(folder: Path, code: str) -> None:
    """Let every Python there run some code when it starts."""
    (folder / "lacking").mkdir(exist_ok=True)
    (folder / "lacking" / "sitecustomize.py").write_text(code, encoding="utf-8")


def kept(folder: Path, place: str = "out") -> dict[str, Any]:
    """Return the parts by name."""
    parts: dict[str, Any] = json.loads((folder / place / FILE).read_text(encoding="utf-8"))["parts"]
    return parts


def bench(folder: Path, name: str = "graph", *, seconds: float = 100, tiny: bool = True) -> Bench:
    """Return what a part measures with, on the CPU."""
    out, work = folder / "out", folder / "work"
    for own in (out, work):
        own.mkdir(parents=True, exist_ok=True)
    record = Record([out / FILE, work / FILE], tiny=tiny)
    return Bench(name, record, on=CPU, tiny=tiny, out=out, work=work, seconds=seconds)


def test_help_and_plan(tmp_path: Path) -> None:
    """--help tells the usage, --plan the parts with their minutes and needs; unknown words are refused."""
    assert script("--help", folder=tmp_path).stdout.startswith("usage: benchmarks/gpu_short.sh")
    planned = script("--plan", folder=tmp_path)
    assert planned.returncode == 0, planned.stderr
    lines = planned.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == PARTS
    assert all("min  not begun" in line and "needs" in line for line in lines[:-1])
    for word in ("--unknown", "unknown"):
        refused = script(word, folder=tmp_path)
        assert refused.returncode == 2 and refused.stderr.startswith("usage:")


def test_the_plan_says_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the figures that are kept in either folder, or in the file that --json names."""
    file = tmp_path / "elsewhere.json"
    record = Record([file], tiny=False)
    part = record.begun("graph", "CPU")
    part.state = COMPLETE
    record.write(part)
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert gpu_short.main(["--plan", *folders, "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "complete" in line] == ["graph"]


def test_a_missing_package_is_told_with_its_wheel(tmp_path: Path) -> None:
    """Before anything else runs, with the exit code of wrong input, and with the command that fetches the wheels."""
    change_start(
        tmp_path,
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "absent = {'pydantic', 'pydantic_core'}\n"
        "PathFinder.find_spec = lambda name, *more: None if name in absent else find(name, *more)\n",
    )
    refused = script("--tiny", folder=tmp_path)
    assert refused.returncode == 2 and refused.stdout == ""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    lines = refused.stderr.splitlines()
    assert any(line.strip().startswith("pydantic_core-") and f"-{tag}-*-manylinux" in line for line in lines)
    assert any(line.strip().startswith("pydantic-") and line.endswith("-py3-none-any.whl") for line in lines)
    assert "pip download" in lines[-1] and "pydantic_core==" in lines[-1] and "pydantic==" in lines[-1]
    assert not (tmp_path / "out" / FILE).exists()


@pytest.mark.long
def test_what_only_data_needs_stops_only_the_training(tmp_path: Path) -> None:
    """Without scikit-learn nothing can be split; all other figures are there all the same."""
    change_start(
        tmp_path,
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *more: None if name == 'sklearn' else find(name, *more)\n",
    )
    done = script("--tiny", "graph", "train", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "lacks sklearn, without which `train` waits" in done.stderr
    parts = kept(tmp_path)
    assert (parts["graph"]["state"], parts["train"]["state"]) == (COMPLETE, WAITS)
    assert parts["train"]["note"].startswith("sklearn is missing") and "scikit_learn" in parts["train"]["note"]
    refused = script("--tiny", folder=tmp_path, name="gpu_train.sh")
    assert refused.returncode == 2 and "lacks sklearn" in refused.stderr


def test_packages_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """pydantic is there, and can't be imported: its whole family is to be brought."""
    settings(tmp_path)
    (tmp_path / "lacking" / "pydantic.py").write_text("raise SystemError('another core')\n", encoding="utf-8")
    refused = script("--tiny", folder=tmp_path)
    assert refused.returncode == 2 and "SystemError: another core" in refused.stderr
    assert all(f"{own}-" in refused.stderr for own in gpu_packages.PYDANTIC)


def test_nothing_that_training_imports_is_forgotten() -> None:
    """Distributions that the library depends on are all looked for, but for those of other commands."""
    looked_for = gpu_packages.COMPILED | gpu_packages.PURE | gpu_packages.FOR_DATA
    known = {own.replace("_", "-") for own in looked_for.values()}
    assert {"torch", "torchvision", "numpy", "pydantic", "jaxtyping", "safetensors", "fsspec", "pyyaml"} <= known
    assert gpu_packages.missing(looked_for) == []


@pytest.mark.long
def test_without_cuda_it_says_how_to_try(tmp_path: Path) -> None:
    """The full size on a CPU would take days."""
    refused = script("machine", folder=tmp_path)
    assert refused.returncode == 2 and "--tiny" in refused.stderr


@pytest.mark.long
def test_parts_at_tiny_size(tmp_path: Path) -> None:
    """Each has its figures, in all files; a second call finds them. Compiling takes a CPU minutes: see test_compiling."""
    file, most = tmp_path / "elsewhere.json", [name for name in PARTS if name != "compile"]
    done = script("--tiny", "--json", str(file), *most, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = kept(tmp_path)
    assert list(parts) == most and parts == kept(tmp_path, "work") == json.loads(file.read_text())["parts"]
    assert {part["state"] for part in parts.values()} == {COMPLETE}
    figures = {name: part["figures"] for name, part in parts.items()}
    assert figures["step"]["the same steps again give the same bits"] is True
    assert figures["step"]["step"]["naive / ours"]["digits"] > 0
    assert parts["graph"]["note"] == "needs CUDA" and figures["graph"] == {}
    assert figures["throughput"]["attack's gradient, float32: relative difference from the CPU's in float32"] < 1e-4
    accuracy = figures["train"]["PGD-AT: AutoAttack"]["robust"]
    assert accuracy["n"] == 32 and accuracy["interval"][0] <= accuracy["value"] <= accuracy["interval"][1]
    assert (tmp_path / "out" / "weights" / "robust.safetensors.part00").is_file()

    for left in (tmp_path / "out").rglob("*.json"):
        left.unlink()  # the folder of the results may be emptied between calls
    again = script("--tiny", "graph", folder=tmp_path)
    assert again.returncode == 0
    assert {name: own for name, own in kept(tmp_path).items() if name != "graph"} == {
        name: own for name, own in parts.items() if name != "graph"
    }
    assert kept(tmp_path)["graph"]["written"] > parts["graph"]["written"]


@pytest.mark.long
def test_a_killed_call_goes_on(tmp_path: Path) -> None:
    """What was measured is kept and not measured again, and no process stays behind."""
    words = ["benchmarks/gpu_short.sh", "--tiny", "machine", "step"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, cwd=ROOT, env=settings(tmp_path), **quiet) as call:  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while not (tmp_path / "out" / FILE).exists() or not kept(tmp_path).get("step", {}).get("figures"):
            assert time.monotonic() < until and call.poll() is None
            time.sleep(0.02)
        children = psutil.Process(call.pid).children(recursive=True)
        call.send_signal(signal.SIGKILL)
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    before = kept(tmp_path)
    assert before["machine"]["state"] == COMPLETE and before["step"]["state"] == MORE
    done = script("--tiny", "step", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    after = kept(tmp_path)
    assert after["machine"] == before["machine"] and after["step"]["state"] == COMPLETE
    assert after["step"]["figures"].items() >= before["step"]["figures"].items()


@pytest.mark.long
def test_a_failing_part_leaves_the_others(tmp_path: Path) -> None:
    """Whether it raises, or takes its process along; the exit code tells, and what was measured stays."""
    settings(tmp_path)
    (tmp_path / "lacking" / "sklearn.py").write_text("raise ImportError('no digits')\n", encoding="utf-8")
    change_start(
        tmp_path, "import os, sys\nif 'gpu_part' in str(sys.orig_argv) and 'step' in sys.orig_argv: os.abort()\n"
    )
    failed = script("--tiny", "train", "step", "graph", folder=tmp_path)
    assert failed.returncode == 1
    parts = kept(tmp_path)
    assert {name: part["state"] for name, part in parts.items()} == {"train": FAILED, "step": FAILED, "graph": COMPLETE}
    assert (
        parts["train"]["error"] == "ImportError: no digits"
        and "peaks, TFLOP/s (copy: TB/s)" in parts["train"]["figures"]
    )
    assert parts["step"]["error"] == f"the process ended with {-signal.SIGABRT}, see above"
    assert "error | ImportError: no digits" in failed.stdout


def test_a_part_begins_where_it_has_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of its minutes must be left, but for the first one, or a short call would never do anything."""
    begun: list[str] = []

    def run(name: str, record: Record, *_: object) -> Record:
        begun.append(name)
        return record

    monkeypatch.setattr(gpu_short, "run", run)
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert gpu_short.main([*folders, "--minutes", "1.7"]) == gpu_short.TO_BE_CONTINUED
    assert begun == PARTS[:-1]
    assert gpu_short.main([*folders, "--minutes", "0.1", "train", "step"]) == gpu_short.TO_BE_CONTINUED
    assert begun[5:] == ["train"]


def test_late_parts_go_on(tmp_path: Path) -> None:
    """One figure is measured in any case, so that every call gets further; those that are there cost nothing."""

    def part(own: Bench) -> None:
        for name in ("one", "two", "three"):
            own.figure(name, lambda name=name: asked.append(name))  # type: ignore[misc]

    asked: list[str] = []
    states = []
    for _ in range(3):
        own = bench(tmp_path, seconds=-1)
        measured(own, part)
        states.append(own.part.state)
    assert asked == ["one", "two", "three"] and states == [MORE, MORE, COMPLETE]


def test_figures_of_other_devices_and_sizes_do_not_count(tmp_path: Path) -> None:
    """A part begins anew on another card; a tiny run takes nothing from a full one; the newest of the files counts."""
    file, older = tmp_path / FILE, tmp_path / "older.json"
    for place, figure in ((older, 1), (file, 2)):
        record = Record([place], tiny=True)
        record.begun("step", "one card").figures["speed"] = figure
        record.write(record.parts["step"])
    assert Record([older, file], tiny=True).begun("step", "one card").figures == {"speed": 2}
    assert Record([file], tiny=False).parts == {}
    assert Record([file], tiny=True).begun("step", "another card").figures == {}


def test_a_list_of_figures_is_readable() -> None:
    """Tables become lines; numbers have four digits."""
    found = flat({"a": {"b": 1234.5, "c": {"d": 0.123456}}, "e": True})
    assert found == [("a: b", "1,234"), ("a: c: d", "0.1235"), ("e", "True")]


def test_a_damaged_cache_of_compiled_code_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other folder's file is taken; what other parts have compiled stays in the file."""
    loaded: list[bytes] = []
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", loaded.append)
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"compiled", None))
    folders = {"out": tmp_path / "out", "work": tmp_path / "work"}
    for folder in folders.values():
        folder.mkdir()
    with compiler_cache.kept("compile", **folders):
        assert loaded == []
    (tmp_path / "work" / compiler_cache.FILE).write_bytes(b"PK cut off")
    with compiler_cache.kept("train", **folders):
        assert loaded == [b"compiled"]
    with compiler_cache.kept("train", **folders):
        assert loaded == [b"compiled"] * 3


def test_a_large_cache_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are too large don't come back from the machine."""
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (os.urandom(2000), None))
    monkeypatch.setattr(compiler_cache, "LARGEST", 1000)
    with compiler_cache.kept("compile", out=tmp_path, work=tmp_path / "."):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [compiler_cache.FILE]
    monkeypatch.delattr(torch.compiler, "save_cache_artifacts")
    monkeypatch.delattr(torch.compiler, "load_cache_artifacts")
    with compiler_cache.kept("compile", out=tmp_path, work=tmp_path):
        pass


def with_graphs(own: Bench, record: RecordWork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all networks of a bench repeat attacks by a double of a CUDA graph."""

    def ours(*overrides: str) -> Ours:
        made = Ours(own.case, own.on, *overrides)
        made.frozen.graphs = GraphCache(record)
        return made

    monkeypatch.setattr(own, "ours", ours)
    fallback.warn_once.cache_clear()


def test_graphs_are_measured_beside_the_eager_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a double on the CPU: it is taken, and gives equal pixels."""
    own = bench(tmp_path)
    with_graphs(own, rerun, monkeypatch)
    measured(own, graph_part)
    assert own.part.state == COMPLETE and own.part.warnings == []
    eager, graph = (own.part.figures[f"PGD, 64 images, {way}"] for way in ("eager", "graph"))
    for speed in (eager, graph):
        assert (
            speed["taken"] and speed["refused"] is None and speed["equal_pixels"] == 1 and speed["images_a_second"] > 0
        )
    assert fastest(own) in {"eager", "graph"}


def test_refused_graphs_are_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library goes on without, and the figure says so; such a way is never the fastest."""

    def failing(done: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    own = bench(tmp_path)
    with_graphs(own, failing, monkeypatch)
    measured(own, graph_part)
    graph = own.part.figures["PGD, 64 images, graph"]
    assert not graph["taken"] and "not permitted when stream is capturing" in graph["refused"]
    assert own.part.warnings == [graph["refused"]] and graph["equal_pixels"] == 1
    own.part.figures["PGD, 64 images, graph"]["images_a_second"] = float("inf")
    assert fastest(own) == "eager"


def test_what_determinism_costs_leaves_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ratio is of passes with and without it, in turns."""
    seen: list[bool] = []
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    own = bench(tmp_path)
    ours, batch = own.ours("engine.compile=false"), batch_of(own.case.shape, 8, CPU)
    monkeypatch.setattr(
        "benchmarks.gpu_parts.training_pass", lambda *_: seen.append(torch.backends.cudnn.deterministic)
    )
    assert deterministic_cost(ours, batch) > 0
    assert torch.backends.cudnn.deterministic is True
    assert seen[:4] == [False, True, False, True]
    training_pass(ours, batch)
    assert all(parameter.grad is not None for parameter in ours.natural.learner.model.parameters())


def test_peaks_are_measured_by_precision() -> None:
    """TF32 has its own, where there is CUDA."""
    assert set(Peaks.of(CPU, quick=True).products) == {"float32", "bfloat16"}


UNPACK = """
import hashlib
from pathlib import Path
HERE = Path(__file__).parent
def batch(name, title, labels, filenames):
    return f"{title}: {(HERE / (name + '.webp')).read_text()}, {labels[0]}, {filenames[-1]}".encode()
def meta():
    return b"meta"
def md5(text):
    return hashlib.md5(text.encode()).hexdigest()
MD5 = {f"data_batch_{k + 1}": md5(f"training batch {k + 1} of 5: picture, {k}, {10000 * k + 9999}.png") for k in range(4)}
MD5 |= {"data_batch_5": md5("another"), "batches.meta": md5("meta")}
MD5 |= {"test_batch": md5("testing batch 1 of 1: picture, 5, 59999.png")}
"""


def picture_folder(folder: Path, names: list[str], *, unpacking: bool) -> Path:
    """Make a folder of WebP files, with what unpacks them or without."""
    folder.mkdir()
    for name in names:
        (folder / f"{name}.webp").write_text("picture", encoding="utf-8")
    if unpacking:
        (folder / "unpack.py").write_text(UNPACK, encoding="utf-8")
        rows = "\n".join(f"batch\t{k % 10000}\t{k // 10000}\t{k}.png" for k in range(60_000))
        (folder / "index.tsv.xz").write_bytes(lzma.compress(f"head\n{rows}\n".encode(), preset=0))
    return folder


def test_halves_of_cifar10_are_kept_and_told(tmp_path: Path) -> None:
    """WebP is unpacked with the program that came with the first half; the second half may come without."""
    first = picture_folder(tmp_path / "first", ["data_batch_1", "data_batch_2", "test_batch"], unpacking=True)
    second = picture_folder(tmp_path / "second", ["data_batch_3", "data_batch_4"], unpacking=False)
    target = tmp_path / "cifar10"
    assert cifar10_files.gathered([second], target) == []
    here = cifar10_files.gathered([first, tmp_path / "nowhere"], target)
    assert here == ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "test_batch"]
    assert cifar10_files.gathered([], target) == here
    assert cifar10_files.state(here[:2] + here[4:]) == (
        "CIFAR-10: 3 of 6 files are here (data_batch_1, data_batch_2, test_batch); missing: data_batch_3, data_batch_4,"
        " data_batch_5: bring them with the next call; meanwhile 20,000 images are trained on and test_batch is tested on"
    )
    assert cifar10_files.state(here[:1]).endswith("two are needed, one to train on and one to test on")
    assert cifar10_files.state(cifar10_files.BATCHES) == "CIFAR-10: all 6 files are here"
    assert cifar10_files.parted(here[:3]) == (["data_batch_1", "data_batch_2"], ["data_batch_3"])


def test_a_damaged_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the name of the file to bring again."""
    folder = picture_folder(tmp_path / "first", ["data_batch_5"], unpacking=True)
    assert cifar10_files.main([str(folder), str(tmp_path / "cifar10")]) == 2
    assert "bring data_batch_5.webp again" in capsys.readouterr().err


def small_trainings(_: Bench) -> list[Training]:
    """Return trainings on CIFAR-10 that take a CPU seconds."""
    small = ("model.width=2", "training.batch_size=20", "data.validation=0.2", "evaluation.square_queries=1")
    small += (f"data.path={os.environ['HERE']}", "engine.compile=false", "training.threads=1")
    natural = "experts.robust.objective={name: natural, label_smoothing: 0}"
    attack = "experts.robust.objective.attack.steps=1"
    return [
        Training("natural", "cifar10-pgd-at", (*small, natural), "natural", 0.1, 2),
        Training("PGD-AT", "cifar10-pgd-at", (*small, attack), "robust", 0.5, 2),
    ]


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """Give a function that makes the part `train` with some of CIFAR-10's files, generated and small."""
    stand_in("cifar10", tmp_path / "official", monkeypatch)
    official = tmp_path / "official" / cifar10_files.BELOW
    monkeypatch.setenv("HERE", str(tmp_path / "work" / "cifar10"))
    monkeypatch.setattr(gpu_learning, "trainings", small_trainings)
    monkeypatch.setattr(gpu_accuracy, "ATTACKED", 2)

    def part(*names: str) -> Bench:
        half = tmp_path / "-".join(("half", *names))
        half.mkdir()
        for name in (*names, cifar10_files.META):
            (half / name).write_bytes((official / name).read_bytes())
        monkeypatch.setenv("CIFAR10", str(half))
        own = bench(tmp_path, "train", tiny=False)
        own.case = Case("cifar10-resnet18", RGB, 20, ("model.width=2", "training.batch_size=20"))
        monkeypatch.setattr(own, "peaks", lambda: Peaks({"float32": 1e12}, 1e10))
        return own

    return part


@pytest.mark.long
def test_a_training_takes_the_files_that_have_come(cifar10: Callable[..., Bench], tmp_path: Path) -> None:
    """With one file it waits; with some it trains, tests on the last of them, and waits; with more it begins anew."""
    own = cifar10("data_batch_1")
    measured(own, train_part)
    assert own.part.state == WAITS and own.part.note is not None and "two are needed" in own.part.note

    own = cifar10("data_batch_2", "data_batch_3")
    measured(own, train_part)
    assert own.part.state == WAITS, own.part.error
    assert own.part.note is not None and "data_batch_3 is tested on" in own.part.note
    first = own.part.figures["PGD-AT: training"]["images"]
    assert own.part.figures["PGD-AT: AutoAttack"]["robust"]["n"] == 2
    assert own.part.figures["natural: training"]["share of the peak"] > 0

    own = cifar10("data_batch_4", "data_batch_5", "test_batch")
    measured(own, train_part)
    assert own.part.state == COMPLETE, own.part.error
    assert own.part.figures["PGD-AT: training"]["images"] > 2 * first
    prepared = [folder for folder in (tmp_path / "work").glob("short-data-*") if "test_batch" in folder.name]
    assert len(load_data(prepared[0]).test) == own.part.figures["natural: natural accuracy"]["n"]


def test_what_a_training_on_fewer_files_found_stays(cifar10: Callable[..., Bench]) -> None:
    """Another machine, with the second half alone, doesn't drop the figures of a finished training."""
    own = cifar10("data_batch_4", "data_batch_5")
    own.part.figures |= {"files of CIFAR-10": ["data_batch_1", "data_batch_2", "test_batch"]}
    own.part.figures |= {"PGD-AT: AutoAttack": "found"}
    with pytest.raises(WaitingError):
        train_part(own)
    assert own.part.figures["PGD-AT: AutoAttack"] == "found"


def test_an_attack_that_is_cut_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seconds are counted over all calls."""
    own = bench(tmp_path, "train", seconds=-1)
    monkeypatch.setattr(gpu_accuracy, "read_classifier", lambda *_, **__: lambda images: images.flatten(1)[:, :10])
    monkeypatch.setattr(gpu_accuracy, "file_sha256", lambda _: 64 * "0")
    data = type("Data", (), {})
    test = type("Split", (), {"images": torch.zeros(4, 1, 8, 8, dtype=torch.uint8).numpy()})
    test.labels = torch.zeros(4, dtype=torch.int64).numpy()  # type: ignore[attr-defined]
    data.test = test  # type: ignore[attr-defined]
    monkeypatch.setattr(
        gpu_accuracy, "autoattack", lambda *_, watch, **__: watch(AttackProgress("apgd-ce", 4, 0.5, 3, 4))
    )
    (tmp_path / f"attack-{16 * '0'}.safetensors").touch()
    own.part.figures["PGD-AT: natural accuracy"] = own.part.figures["PGD-AT: seconds of AutoAttack so far"] = 5.0
    with pytest.raises(LateError):
        gpu_accuracy.attack(own, "PGD-AT", tmp_path / "robust.safetensors", load(preset="digits").evaluation, data)  # type: ignore[arg-type]
    assert own.part.figures["PGD-AT: seconds of AutoAttack so far"] > 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: graphs and compiled code for real")
def test_all_parts_on_a_gpu(tmp_path: Path) -> None:
    """At tiny size: graphs are taken and give equal pixels, and every part is complete."""
    done = script("--tiny", folder=tmp_path, CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    assert done.returncode == 0, done.stdout + done.stderr
    graph = kept(tmp_path)["graph"]
    assert graph["device"] == device_name(torch.device("cuda"))
    assert graph["figures"]["PGD, 64 images, graph"]["taken"]
    assert graph["figures"]["PGD, 64 images, graph"]["equal_pixels"] > 0.99
    assert "tf32" in kept(tmp_path)["machine"]["figures"]["peaks, TFLOP/s (copy: TB/s)"]


def test_every_part_has_a_measure() -> None:
    """The plan, which needs no torch, names those that there are."""
    assert list(gpu_short.PARTS) == list(MEASURES) == PARTS

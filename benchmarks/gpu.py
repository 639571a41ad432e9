"""All benchmarks of a device in one process, and a short table of them; `gpu.sh` calls it."""

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_checks, machine, roofline, training_step

RESNET18 = ("resnet18_float32", "resnet18_bf16_attack", "resnet18_bf16")


def ran(main: Callable[[Sequence[str]], None], words: Sequence[str], file: Path) -> dict[str, Any]:
    """What a benchmark writes; nothing if it fails, so that the others' figures are there all the same."""
    began = time.perf_counter()
    file.unlink(missing_ok=True)
    try:
        main([*words, "--json", str(file)])
    except Exception:  # noqa: BLE001  whatever it is, it is told
        traceback.print_exc()
    print(f"\n# {file.stem}: {time.perf_counter() - began:.0f} s\n", flush=True)
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return result


def flat(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The ratios of all of them, by name."""
    found = {}
    for title, result in results.items():
        for name, ratio in result.get("ratios", {}).items():
            parts = ratio.items() if isinstance(ratio, dict) else [("", ratio)]
            found |= {f"{title}: {name} {part}".rstrip(): float(own) for part, own in parts}
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Run them; the exit code is 1 if one failed."""
    parser = machine.arguments(__doc__, quick="on the network for digits alone, which takes a CPU seconds")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the files of each")
    machine.add_device(parser)
    arguments = parser.parse_args(words)
    on, quick = machine.device(arguments.device), ["--quick"] if arguments.quick else []
    common = [*quick, "--device", on.type]
    cases = ["--case", *(["digits"] if arguments.quick else RESNET18)]
    jobs: dict[str, tuple[Callable[[Sequence[str]], None], list[str]]] = {
        "training_step": (training_step.main, [*common, *cases]),
        "roofline": (roofline.main, [*common, *cases]),
        "checks": (gpu_checks.main, common),
    }
    results = {name: ran(run, own, arguments.out / f"{name}.json") for name, (run, own) in jobs.items()}
    ratios, checks = flat(results), results["checks"]
    machine.tell(ratios, on, arguments.json or arguments.out / "gpu.json", results=results)
    lines = [[name, f"{own:.3g}"] for name, own in ratios.items()]
    for name, own in checks.get("difference_from_cpu", {}).items():
        lines.append([f"difference from the CPU's gradients: {name}", f"{own:.1e}"])
    lines += [[name, f"{own:,.0f}"] for name, own in checks.get("throughput", {}).items()]
    failed = [name for name, result in results.items() if not result]
    lines += [[name, "FAILED, see above"] for name in failed]
    print("\n" + machine.table(["what", ""], lines))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

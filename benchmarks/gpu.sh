#!/usr/bin/env bash
# All benchmarks of a CUDA machine in one command, under three minutes; a short table comes last.
set -euo pipefail

usage() {
    cat <<'END'
usage: benchmarks/gpu.sh [--tiny] [--json FILE]

Training step (ours, plain, naive), roofline, throughput of PGD and AutoAttack, and agreement of this device's gradients
with the CPU's. Needs nothing but generalist/, presets/ and the library's packages.

  --tiny, --quick  on the network for digits alone, which takes a CPU seconds
  --json FILE      write the last table's figures there

Relative paths below start at the project's folder.

environment: OUT     folder of the results (results)
             PYTHON  the Python to use (python3)
             WHEELS  folder of wheels for packages that this Python lacks
END
}

tiny="" json=""
while [ $# -gt 0 ]; do
    case $1 in
        --tiny | --quick) tiny=1 ;;
        --json) json=$(realpath -m "${2:?--json needs a file}") && shift ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
# shellcheck source=benchmarks/gpu_setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/gpu_setup.sh"

if [ -z "$tiny" ] && ! has_cuda; then
    echo "torch sees no CUDA device here; to try this command on a CPU: $0 --tiny" >&2
    exit 2
fi
exec "$PYTHON" -m benchmarks.gpu ${tiny:+--quick} --out "$OUT" ${json:+--json "$json"}

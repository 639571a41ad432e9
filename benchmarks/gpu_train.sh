#!/usr/bin/env bash
# A whole training on a GPU machine, in pieces under nine minutes: the same command goes on until it ends with 0.
set -euo pipefail

usage() {
    cat <<'END'
usage: benchmarks/gpu_train.sh [--tiny] [--json FILE] [-S KEY=VALUE ...] [PRESET]

Trains PRESET (cifar10-resnet18) for some minutes and ends with 3 while there is more to do:

    until benchmarks/gpu_train.sh; do [ $? = 3 ] || break; done

At its end come, into OUT, the deployed learner's weights in files of at most 15 MiB (`cat` joins them), history.json,
and table.md: throughput, seconds, share of the measured peak. The weights are kept in WORK, too, for gpu_attack.sh.
Needs nothing but generalist/, presets/ and the library's packages.

  --tiny, --quick  two epochs of a tiny network on digits, which takes a CPU seconds
  --json FILE      write the table's figures there
  -S KEY=VALUE     an override of the preset, such as engine.attack_precision=bfloat16

Relative paths below start at the project's folder.

environment: CIFAR10  folders with CIFAR-10's official files, separated by ':'; or with WebP, see gpu_short.sh
             MINUTES  of a piece (8)
             OUT      folder of the results (results)
             WORK     folder of states and prepared data (.generalist/gpu), to be kept between pieces
             PYTHON   the Python to use (python3)
             WHEELS   folder of wheels for packages that this Python lacks
END
}

tiny="" json="" preset=cifar10-resnet18 overrides=()
while [ $# -gt 0 ]; do
    case $1 in
        --tiny | --quick) tiny=1 preset=digits ;;
        --json) json=$(realpath -m "${2:?--json needs a file}") && shift ;;
        -S) overrides+=(-S "${2:?-S needs KEY=VALUE}") && shift ;;
        --help | -h) usage && exit ;;
        -*) usage >&2 && exit 2 ;;
        *) preset=$1 ;;
    esac
    shift
done
# shellcheck source=benchmarks/gpu_setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/gpu_setup.sh"

if [ -n "$tiny" ]; then
    overrides=(-S training.epochs=2 -S mixing.warm_up=1 -S model.width=4 -S training.batch_size=512 "${overrides[@]}")
elif has_cuda; then
    overrides=(-S training.device=cuda "${overrides[@]}")
fi
data_options
trained=$WORK/trained-$preset
code=0
"$PYTHON" -m generalist.training --preset "$preset" "${overrides[@]}" --data "$WORK/data-$preset" \
    --store "$WORK/store" --out "$trained" --seconds $((60 * ${MINUTES:-8})) || code=$?
if [ "$code" != 0 ]; then
    [ "$code" != 3 ] || echo "there is more to do: run the same command again"
    exit "$code"
fi
rm -f "$OUT"/*.safetensors.part*  # of another learner: `cat` would join them all
"$PYTHON" -m benchmarks.gpu_results "$trained" --preset "$preset" "${overrides[@]}" --data "$WORK/data-$preset" \
    --out "$OUT" --json "${json:-$OUT/training.json}"
# For gpu_attack.sh, also where OUT is emptied between calls.
cat "$OUT"/*.safetensors.part* > "$WORK/weights-$preset.safetensors"

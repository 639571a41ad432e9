#!/usr/bin/env bash
# AutoAttack on test images FROM to TO of trained weights, in pieces under nine minutes, and the merging of such shards.
set -euo pipefail

usage() {
    cat <<'END'
usage: benchmarks/gpu_attack.sh [--tiny] [--json FILE] [--bf16] [-S KEY=VALUE ...] FROM TO
       benchmarks/gpu_attack.sh [--json FILE] merge [VERDICTS.npz ...]

Attacks the test images FROM to TO - 1 with the preset's evaluation (`standard`), and ends with 3 while there is more to
do: the same command goes on. The verdicts come into OUT/verdicts-FROM-TO.npz. `merge` puts shards together (by default
all in OUT) and tells natural and robust accuracy with n and 95 % interval. Needs nothing but generalist/, presets/ and
the library's packages.

  --tiny, --quick  after `gpu_train.sh --tiny`: a quick cascade with few queries, which takes a CPU seconds
  --json FILE      write the accuracies there
  --bf16           search in bfloat16; verdicts are float32 always
  -S KEY=VALUE     an override of the preset

Relative paths below start at the project's folder.

environment: PRESET   whose weights they are (cifar10-resnet18)
             WEIGHTS  a .safetensors file, or a folder with its parts (OUT; where it has none, what gpu_train.sh has
                      kept in WORK)
             CIFAR10, MINUTES, OUT, WORK, PYTHON, WHEELS as for gpu_train.sh
END
}

tiny="" json="" words=() options=()
while [ $# -gt 0 ]; do
    case $1 in
        --tiny | --quick) tiny=1 ;;
        --json) json=$(realpath -m "${2:?--json needs a file}") && shift ;;
        --bf16) options+=(--precision bfloat16) ;;
        -S) options+=(-S "${2:?-S needs KEY=VALUE}") && shift ;;
        --help | -h) usage && exit ;;
        -*) usage >&2 && exit 2 ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ "${#words[@]}" -ge 1 ] || { usage >&2 && exit 2; }
# shellcheck source=benchmarks/gpu_setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/gpu_setup.sh"

if [ "${words[0]}" = merge ]; then
    shards=("${words[@]:1}")
    [ "${#shards[@]}" -gt 0 ] || shards=("$OUT"/verdicts-*.npz)
    exec "$PYTHON" -m benchmarks.gpu_verdicts merge "${shards[@]}" ${json:+--json "$json"}
fi
[ "${#words[@]}" = 2 ] || { usage >&2 && exit 2; }

preset=${PRESET:-cifar10-resnet18}
if [ -n "$tiny" ]; then
    preset=digits
    options+=(-S evaluation.attack=quick -S evaluation.square_queries=10)
elif has_cuda; then
    options+=(-S training.device=cuda)
fi
overrides=()
data_options
weights=${WEIGHTS:-$OUT} kept=$WORK/weights-$preset.safetensors
if compgen -G "$weights/*.safetensors.part*" > /dev/null; then
    cat "$weights"/*.safetensors.part* > "$WORK/weights.safetensors"
    weights=$WORK/weights.safetensors
elif [ -z "${WEIGHTS:-}" ] && [ -f "$kept" ]; then
    weights=$kept
elif [ ! -f "$weights" ]; then
    echo "no weights in $weights: run benchmarks/gpu_train.sh first, or name them by WEIGHTS" >&2
    exit 2
fi
exec "$PYTHON" -m benchmarks.gpu_verdicts attack "${words[@]}" --weights "$weights" --preset "$preset" \
    "${options[@]}" "${overrides[@]}" --data "$WORK/data-$preset" --out "$OUT" --states "$WORK/attacks" \
    --seconds $((60 * ${MINUTES:-8})) ${json:+--json "$json"}

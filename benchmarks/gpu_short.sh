#!/usr/bin/env bash
# What a rented GPU machine can tell in a quarter of an hour, in parts of at most four minutes; a killed call goes on.
set -euo pipefail

usage() {
    cat <<'END'
usage: benchmarks/gpu_short.sh [--tiny] [--plan] [--json FILE] [PART ...]

Runs the parts that are not complete yet, or those that are named (also where they are complete), in this order:

  machine     versions, the device and its peaks
  step        a training step: naive, plain and fast; whether it is reproducible, and what that costs
  graph       PGD step by step and repeated by a CUDA graph
  compile     PGD by torch.compile
  throughput  PGD-10 and AutoAttack's attacks in float32, TF32 and bfloat16; gradients against the CPU's
  train       natural training and PGD-AT of ResNet-18 on CIFAR-10, and AutoAttack on their weights

Every figure is written at once into OUT/gpu_short.json and WORK/gpu_short.json, and the next call goes on from either.
It ends with 0 when all parts are complete, with 3 while there is more to do (run it again), with 1 where a part failed
(the others are there all the same), and with 2 where something is missing. Compiled code is kept in
OUT/compile-cache.zip, and the weights of PGD-AT in OUT/weights, in files of at most 15 MiB. CIFAR-10 may come in two
calls, half in each: `train` uses what is there, says what is missing, and begins anew with more. Needs nothing but
generalist/, presets/ and the library's packages.

  --tiny, --quick  on the network for digits alone, which takes a CPU one or two minutes
  --plan           say what the parts are, how long they take, and which are done; run none
  --json FILE      keep the figures there, too, and go on from them: the way to go on where OUT and WORK are gone

Relative paths below start at the project's folder.

environment: CIFAR10  folders separated by ':', with CIFAR-10's official files or with data_batch_1.webp and so on,
                      index.tsv.xz and unpack.py (data/raw/cifar10)
             MINUTES  after which a call measures nothing more (9)
             OUT      folder of the results (results)
             WORK     folder of states, data and compiled code (.generalist/gpu), to be kept between calls
             PYTHON   the Python to use (python3)
             WHEELS   folder of wheels for packages that this Python lacks
END
}

json="" words=()
while [ $# -gt 0 ]; do
    case $1 in
        --tiny | --quick) words+=(--tiny) ;;
        --plan) words+=(--plan) ;;
        --json) json=$(realpath -m "${2:?--json needs a file}") && shift ;;
        --help | -h) usage && exit ;;
        -*) usage >&2 && exit 2 ;;
        *) words+=("$1") ;;
    esac
    shift
done
# shellcheck disable=SC2034  # gpu_setup.sh reads it: only `train` splits data
data_later=1
# shellcheck source=benchmarks/gpu_setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/gpu_setup.sh"

TORCHINDUCTOR_CACHE_DIR=$(realpath "$WORK")/compiler
export TORCHINDUCTOR_CACHE_DIR
exec "$PYTHON" -m benchmarks.gpu_short --out "$OUT" --work "$WORK" --minutes "${MINUTES:-9}" \
    ${json:+--json "$json"} "${words[@]}"

# Sourced by the scripts for GPU machines: the project's folder, its Python, and packages that this Python lacks.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PYTHON=${PYTHON:-python3}
OUT=${OUT:-results}
WORK=${WORK:-.generalist/gpu}
mkdir -p "$OUT" "$WORK"
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore

if [ -n "${WHEELS:-}" ]; then
    # Again where other wheels have come.
    if [ "$(ls "$WHEELS")" != "$(cat "$WORK/site/.installed" 2> /dev/null)" ]; then
        "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" --upgrade --target "$WORK/site" \
            "$WHEELS"/*.whl
        ls "$WHEELS" > "$WORK/site/.installed"
    fi
    export PYTHONPATH="$WORK/site:$PYTHONPATH"
fi

# Tells which packages are missing, and which wheels to bring.
"$PYTHON" -m benchmarks.gpu_packages ${data_later:+--data-later} || exit 2

has_cuda() {
    "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}

# Adds to `overrides` where CIFAR-10's files are kept, after those of all folders were copied or unpacked there.
data_options() {
    [ -n "${CIFAR10:-}" ] || return 0
    "$PYTHON" -m benchmarks.cifar10_files "$CIFAR10" "$WORK/cifar10" || return
    mkdir -p "$WORK/cifar10"
    overrides+=(-S "data.path=$(realpath "$WORK/cifar10")")
}

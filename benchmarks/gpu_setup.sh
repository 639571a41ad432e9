# Sourced by the scripts for GPU machines: the project's folder, its Python, and packages that this Python lacks.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PYTHON=${PYTHON:-python3}
OUT=${OUT:-results}
WORK=${WORK:-.generalist/gpu}
mkdir -p "$OUT" "$WORK"
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore

if [ -n "${WHEELS:-}" ]; then
    if [ ! -e "$WORK/site/.installed" ]; then
        "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" --upgrade --target "$WORK/site" \
            "$WHEELS"/*.whl
        touch "$WORK/site/.installed"
    fi
    export PYTHONPATH="$WORK/site:$PYTHONPATH"
fi

# Packages of the library that training and attacks import; pydantic is the one that GPU images lack most often.
missing=$("$PYTHON" - <<'END'
from importlib.util import find_spec
names = ("torch", "torchvision", "numpy", "scipy", "pydantic", "jaxtyping", "safetensors", "yaml")
print(*(name for name in names if find_spec(name) is None))
END
)
if [ -n "$missing" ]; then
    echo "$PYTHON lacks: $missing. Put their wheels, with those of what they need, into a folder: WHEELS=FOLDER $0" >&2
    exit 2
fi

has_cuda() {
    "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}

# Adds to `overrides` where CIFAR-10's files are; several folders become one of links.
data_options() {
    [ -n "${CIFAR10:-}" ] || return 0
    local folders folder file target=$WORK/cifar10/cifar-10-batches-py
    mkdir -p "$target"
    IFS=: read -r -a folders <<< "$CIFAR10"
    for folder in "${folders[@]}"; do
        for file in "$folder"/*batch* "$folder"/cifar-10-batches-py/*batch*; do
            [ ! -f "$file" ] || ln -sf "$(realpath "$file")" "$target/"
        done
    done
    overrides+=(-S "data.path=$(realpath "$WORK/cifar10")")
}

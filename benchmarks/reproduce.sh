#!/bin/sh
# Every comparison of the documentation: reproduce.sh DATA_DIRECTORY RUNS_DIRECTORY [PLAN...]
# (docs/defaults.md has the command of its tables, docs/failure-case.md that of the second table there.)
# DATA has mnist.npz and cifar10_jpeg.npz. RUNS keeps weights and finished runs: started again, it goes
# on where it stopped. The results, tables and figures are copied to benchmarks/results/comparisons.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=$1
runs=$2
shift 2
all=$([ $# -gt 0 ] || echo yes)
[ $# -gt 0 ] || set -- "$here"/comparisons/*.yaml
for plan in "$@"; do
    python "$here/compare.py" "$plan" --data-dir "$data" --output "$runs"
done
mkdir -p "$here/results/comparisons"
for table in "$runs"/*.md; do
    name=$(basename "$table" .md)
    cp "$runs/$name".* "$here/results/comparisons/"
done
python "$here/results_page.py"
if [ -n "$all" ]; then
    python "$here/figures.py" "$here/comparisons/mnist.yaml" mnist --data-dir "$data" \
        --runs "$runs" --output "$here/results/figures" \
        --method standard --method "AT, lr 0.05" --method "LFR exact" --method LFR
fi

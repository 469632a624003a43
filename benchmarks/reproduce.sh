#!/bin/sh
# Trains and judges what the tables compare: reproduce.sh DATA RUNS [PLAN...]; without a PLAN, all.
# DATA has mnist.npz and cifar10_jpeg.npz. RUNS keeps weights and finished runs: started again, it
# goes on where it stopped. Results and tables are put where those of the documentation are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=$1
runs=$2
shift 2
all=$([ $# -gt 0 ] || echo yes)
if [ -n "$all" ]; then
    for results in "$here"/*/results; do
        set -- "$@" "${results%/results}"/*.yaml
    done
fi
for plan in "$@"; do
    python "$here/compare.py" "$plan" --data-dir "$data" --output "$runs"
done
python "$here/tables.py" --runs "$runs"
python "$here/robustness/evidence.py"
python "$here/front/front.py" "$here/front/results" --docs
if [ -n "$all" ]; then
    python "$here/robustness/figures.py" --data-dir "$data" --runs "$runs"
    python "$here/failure_case/statistics_gap.py" --data-dir "$data" --runs "$runs"
fi

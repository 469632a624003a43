"""`art-lfr compare` where the variants of this folder can be named as penalties.

python benchmarks/compare.py benchmarks/comparisons/digits.yaml --output DIRECTORY
"""

import sys

from art_lfr.cli.app import main

# Python puts the folder of this file on the path: a plan can say `penalty: variants:CLAMPED`.
sys.exit(main(["compare", *sys.argv[1:]]))

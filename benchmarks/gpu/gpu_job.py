"""One job for a machine with a GPU: tests, times, and training in equal time.

    python benchmarks/gpu/gpu_job.py all --data cifar10_jpeg.npz --output OUTPUT

It needs torch and NumPy, and the wheels that wheels.sh has downloaded; no network. Each part is a
process of its own, ends by itself within its minutes, and is ended where it does not; OUTPUT gets
its JSON, which grows as it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The most important first.
PARTS = ("tests", "speed", "training")
# Characters of an error that are kept.
TAIL = 4000
# Seconds after its minutes in which a part may still end by itself.
GRACE = 15.0


def run(arguments: argparse.Namespace) -> None:
    """One part, in this process, which has the wheels."""
    # Here, and below: the process that starts this one has not.
    from gpu_part import Job

    job = Job(
        arguments.only,
        arguments.output,
        arguments.minutes,
        arguments.data,
        arguments.bfloat16,
        arguments.rehearse,
    )
    if job.part == "tests":
        from gpu_tests import run_part
    elif job.part == "speed":
        from gpu_speed import run_part
    else:
        from gpu_training import run_part
    job.write()
    try:
        run_part(job)
    except BaseException:
        job.write(error=traceback.format_exc()[-TAIL:])
        raise
    job.write(ended=True)


def environment_with(wheels: Path, folder: str) -> dict[str, str]:
    """The variables of a process that finds the package, and the wheels where there are any."""
    files = sorted(map(str, wheels.rglob("*.whl")))
    if files:
        command = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder]
        subprocess.run([sys.executable, *command, *files], check=True)
    before = os.environ.get("PYTHONPATH")
    found = [folder, str(ROOT), str(ROOT / "benchmarks" / "speed"), *([before] if before else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(found)}


def run_apart(part: str, arguments: argparse.Namespace, environment: dict[str, str]) -> str:
    """One part in a process of its own; how it ended."""
    path = arguments.output / f"{part}.json"
    path.unlink(missing_ok=True)  # of an earlier run
    command = [sys.executable, __file__, *sys.argv[1:], "--only", part]
    try:
        limit = 60 * arguments.minutes + GRACE
        code = subprocess.run(command, timeout=limit, env=environment, check=False).returncode
        said = "" if code == 0 else f"ended with {code}"
    except subprocess.TimeoutExpired:
        said = "took too long and was ended"
    if said:
        result = json.loads(path.read_text()) if path.exists() else {"part": part}
        path.write_text(json.dumps({**result, "problem": said}, indent=1) + "\n")
    return said


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART")
    parser.add_argument("--data", type=Path, help="cifar10_jpeg.npz, for training")
    parser.add_argument("--output", type=Path, required=True, help="a folder for the results")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each part; default 4")
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="what pip installs")
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16")
    parser.add_argument("--rehearse", action="store_true", help="all of it small, on a CPU")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        parser.error(f"--minutes is {arguments.minutes:g}; allowed: above 0")
    chosen = PARTS if "all" in arguments.parts else arguments.parts
    arguments.parts = [part for part in PARTS if part in chosen]
    if "training" in arguments.parts and not (arguments.data and arguments.data.is_file()):
        parser.error(f"--data is {arguments.data}; allowed: the path of a .npz file with images")
    return arguments


def main() -> None:
    """Run the parts one after another; exit with 1 where one did not end well."""
    arguments = read_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.only:
        run(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_with(arguments.wheels, folder)
        problems = {part: run_apart(part, arguments, environment) for part in arguments.parts}
    for part, said in problems.items():
        print(f"{part}: {said or 'done'}", flush=True)
    sys.exit(any(problems.values()))


if __name__ == "__main__":
    main()

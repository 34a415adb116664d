"""The program: what its arguments ask for, and what it tells in the end."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmark import report
from benchmark.client import Refused, generator_cost
from benchmark.goals import lines, outcome
from benchmark.rounds import NAMES, Bench, OutOfTime
from benchmark.versions import compared, engine_version, program_version
from benchmark.weights import install, model_file

MODEL = "smollm2:135m"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the arguments say, print the table, and write the JSON if it is asked for."""
    wanted = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end as well
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="puna-bench-") as folder:
        models = Path(folder) / "models"
        models.mkdir()
        weights = install(model_file(wanted.model), models, wanted.weights)
        bench = Bench(wanted, weights, Path(folder), started + wanted.minutes * 60)
        try:
            bench.run()
        except OutOfTime:
            print("\nThe time is up; the table tells how often each row was measured.", file=sys.stderr)
        except Refused as error:
            raise SystemExit(f"\n{error}") from None
        _tell(bench, wanted, time.monotonic() - started)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure Puna beside llama-server, and print one table.")
    parser.add_argument(
        "--model", default=MODEL, help="a model of the local store, pulled when missing, or a GGUF file"
    )
    parser.add_argument("--weights", nargs="+", metavar="TYPE", help="only these of the model's own type and Q4_0")
    parser.add_argument("--llama-server", metavar="PATH", help="compare with this one, not the one that is found")
    parser.add_argument("--batched-bench", metavar="PATH", help="likewise: llama-batched-bench tells the raw limit")
    parser.add_argument("--alone", action="store_true", help="measure Puna alone, whatever is found")
    parser.add_argument("--tuned", metavar="OPTIONS", help="measure llama-server with these options as well")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="ROW", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--minutes", type=float, default=40, help="no row is begun later than that")
    parser.add_argument("--quick", action="store_true", help="one small round, to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)


def _tell(bench: Bench, wanted: argparse.Namespace, seconds: float) -> None:
    outcomes = [outcome(line, bench.results) for line in lines([one.kind for one in bench.weights], bench.sizes)]
    cost = generator_cost()
    here = report.machine()
    print(f"{wanted.model}, {bench.sizes.tokens} tokens an answer, medians of {bench.rounds} rounds, {seconds:.0f} s")
    print(f"{here['processor'] or here['machine']}, {here['processors']} CPUs, Python {here['python']}")
    for name, command in bench.commands.items():
        print(f"{name}: {' '.join(command)}")
    engine, versions = engine_version(), {path: program_version(path) for path in bench.programs}
    print(f"engine: {engine}")
    for path, version in versions.items():
        print(f"{path}: {version or 'tells no version'}: {compared(version, engine)}")
    if bench.llama_server is None and not wanted.alone:
        print("No llama-server was found (scripts/build_llama_server makes one): no ratios.")
    print(f"The load generator takes {cost:.0f} µs of a processor for each token, which all servers share.")
    for line in report.table(outcomes):
        print(line)
    print('\nA ratio above 1 means that Puna is better than the best of the others; "beside" is another figure of Puna')
    for one in report.missed(outcomes):
        print(f"not reached: {one.line.kind} {one.line.title.strip()}: {one.ratio:.2f}, goal {one.goal_text}")
    if wanted.json:
        told = {
            "machine": here,
            "model": wanted.model,
            "rounds": bench.rounds,
            "seconds": seconds,
            "generator_microseconds_a_token": cost,
            "commands": bench.commands,
            "versions": {"engine": engine, **versions},
            "row_seconds": bench.seconds,
            "rows": [report.outcome_json(one) for one in outcomes if one.ours is not None],
            "figures": bench.results.as_json(),
        }
        wanted.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

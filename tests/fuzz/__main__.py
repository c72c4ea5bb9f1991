"""Fuzz sabot_sql against plain DuckDB: ``python -m tests.fuzz --seed 1 --minutes 10``.

Every case comes from the seed and its number. One that fails is printed with the line that runs it again, then it is
made small, and kept as SQL and as JSON (``--replay``). The exit code is 1 where a case failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from tests.fuzz.check import describe
from tests.fuzz.shrink import shrunk
from tests.fuzz.worker import Outcome, Worker


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit code is the process's."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.minutes * 60
    totals: Counter[str] = Counter()
    failed = cases = 0
    with (options.out / "worker.log").open("wb") as log:
        worker = Worker(log)
        try:
            for request in _requests(options):
                if time.monotonic() > deadline:
                    break
                outcome = worker.run(request)
                cases += 1
                totals += outcome.counts
                if outcome.failure is not None:
                    failed += 1
                    _report(request, outcome, worker, options)
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
        finally:
            worker.close()
    print(f"\n{cases} cases, {totals['statements']} statements, {failed} failed")
    for what, number in totals.most_common(60):
        print(f"{number:8}  {what}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of all cases (1)")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no case after so long (10)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (0)")
    parser.add_argument("--only", type=int, nargs="+", help="run the cases of these numbers alone")
    parser.add_argument("--durable", action="store_true", help="hand all queries to a durable host")
    parser.add_argument("--replay", type=Path, nargs="+", help="run cases that were kept as JSON")
    parser.add_argument("--shrink", type=float, default=120.0, help="seconds to make a failing case small (120)")
    parser.add_argument("--out", type=Path, default=Path(gettempdir(), "sabot-fuzz"), help="where failures are kept")
    return parser


def _requests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.replay:
        yield from ({"case": json.loads(path.read_text())} for path in options.replay)
        return
    numbers = options.only
    number = options.first
    while numbers is None or numbers:
        yield {
            "seed": options.seed,
            "number": number if numbers is None else numbers[0],
            "durable": options.durable,
        }
        number, numbers = number + 1, None if numbers is None else numbers[1:]


def _report(request: dict[str, Any], outcome: Outcome, worker: Worker, options: argparse.Namespace) -> None:
    failure, case = outcome.failure, outcome.case
    assert failure is not None
    durable = " --durable" if options.durable else ""
    drawn = f"python -m tests.fuzz --seed {options.seed} --only"
    again = f"{drawn} {request['number']}{durable}" if "number" in request else ""
    print(f"\nFAILED {failure.kind}: {again}", flush=True)
    if case is None:  # the process died of it: the case can still be drawn
        from tests.fuzz.case import case_from_dict, random_case

        case = case_from_dict(request["case"]) if "case" in request else random_case(**request)
    print(describe(failure, case.steps)[:4000], flush=True)
    if options.shrink > 0:
        case, failure = shrunk(case, failure, worker, options.shrink)
        print(f"-- made small: {failure.kind}\n{case.script()}\n{failure.detail[:2000]}", flush=True)
    kept = options.out / f"{case.name}.{failure.kind.replace(' ', '-')}"
    kept.with_name(kept.name + ".json").write_text(json.dumps(case.to_dict(), indent=1))
    kept.with_name(kept.name + ".sql").write_text(f"{case.script()}\n/*\n{again}\n{failure.detail}\n*/\n")
    print(f"-- kept: {kept}.json, which --replay runs", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

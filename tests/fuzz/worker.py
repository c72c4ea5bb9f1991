"""A process that runs cases: one line of JSON in, some out; who asked watches it, and ends it where it hangs.

A line in is ``{"seed": 1, "number": 2}`` or ``{"case": {…}}``. Lines out are ``{"step": 3}`` before each statement,
then ``{"failure": {…} or null, "counts": {…}, "case": {…}}``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

from tests.fuzz.case import Case, case_from_dict, random_case
from tests.fuzz.check import HUNG_SECONDS, Failure, run_case

SILENCE_SECONDS = 2 * HUNG_SECONDS + 30.0
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case went: ``case`` is None where not even that came out."""

    case: Case | None
    failure: Failure | None
    counts: Counter[str]


@dataclass(slots=True)
class Worker:
    """The process, started anew after it died."""

    log: IO[bytes]
    _process: subprocess.Popen[str] | None = None
    _lines: Queue[str] = field(default_factory=Queue)
    _relay: threading.Thread = field(default_factory=threading.Thread)

    def run(self, request: dict[str, Any]) -> Outcome:
        """Run one case there."""
        process = self._started()
        assert process.stdin is not None
        begun = self.log.seek(0, os.SEEK_END)
        step = -1
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            while True:
                answer = json.loads(self._lines.get(timeout=SILENCE_SECONDS))
                if "step" in answer:
                    step = answer["step"]
                    continue
                failure = Failure(**answer["failure"]) if answer["failure"] else None
                return Outcome(case_from_dict(answer["case"]), failure, Counter(answer["counts"]))
        except Empty:
            os.kill(process.pid, signal.SIGUSR1)  # it writes down where its threads are
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            kind = "stuck"
        except (json.JSONDecodeError, BrokenPipeError):
            kind = "crashed"
        self.close()
        said = self._words(begun)
        return Outcome(None, Failure(kind, step, f"{said}\nexit code {process.returncode}"), Counter())

    def close(self) -> None:
        """End the process and its own."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._relay.join()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None

    def _words(self, begun: int) -> str:
        with Path(self.log.name).open("rb") as words:
            words.seek(begun)
            return words.read()[-6000:].decode(errors="replace")

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                start_new_session=True,
            )
            self._lines = Queue()
            self._relay = threading.Thread(target=_relay, args=(process, self._lines), daemon=True)
            self._relay.start()
            self._process = process
        return self._process


def _relay(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def main() -> None:
    """Serve until the input ends."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    warm = Case("warm", (), (), (), random_case(0, 0).options)
    run_case(warm, Counter())
    for line in sys.stdin:
        request = json.loads(line)
        case = case_from_dict(request["case"]) if "case" in request else random_case(**request)
        say({"step": -1})
        counts: Counter[str] = Counter()
        failure = run_case(case, counts, lambda number: say({"step": number}))
        say({"failure": failure.to_dict() if failure else None, "counts": counts, "case": case.to_dict()})


if __name__ == "__main__":
    main()

"""The worker process: its events, its end, and the end of everything that it started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer")

from MedShieldLib.slicer import process
from MedShieldLib.slicer.process import State, WorkerProcess

# Says hello, starts a child of its own, and sleeps; deaf to SIGTERM when asked to be.
TREE = """
import json, signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("not json")
print(json.dumps({"event": "log", "message": "gr\\u00fcezi", "child": child.pid}), flush=True)
time.sleep(60)
"""


def run(code, folder, events, *arguments):
    return WorkerProcess([sys.executable, "-c", code, *arguments], folder, events.append)


def wait(until, seconds=30.0):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.02)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except OSError:
        return True


def follow(worker):
    wait(lambda: worker.poll().is_over)


@pytest.fixture
def tree(tmp_path):
    """A worker with a child, and the child's process id."""
    events: list = []
    worker = run(TREE, tmp_path, events)
    wait(lambda: worker.poll() is State.RUNNING and events)
    yield worker, events[0]["child"]
    worker.kill()


def test_events_come_whole_and_other_output_is_skipped(tmp_path):
    events: list = []
    code = "import json\nfor n in range(500): print(json.dumps({'event': 'log', 'n': n}))\nprint('noise')"
    follow(worker := run(code, tmp_path, events))
    assert [event["n"] for event in events] == list(range(500))
    assert worker.state is State.FINISHED and worker.exit_code == 0


def test_exit_code_and_last_words_are_kept(tmp_path):
    code = "import sys; print('why', file=sys.stderr); sys.exit(20)"
    follow(worker := run(code, tmp_path, []))
    assert worker.exit_code == 20 and worker.state is State.FINISHED and worker.last_words() == "why"


def test_large_output_does_not_stall_a_worker_that_nobody_reads(tmp_path):
    worker = run("print('x' * 2_000_000)", tmp_path, [])
    wait(lambda: worker._process.poll() is not None)
    follow(worker)
    assert worker.state is State.FINISHED


def test_cancel_ends_the_whole_tree(tree):
    worker, child = tree
    worker.cancel()
    follow(worker)
    assert worker.state is State.CANCELLED
    wait(lambda: gone(child))


def test_worker_that_does_not_listen_is_killed_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_S", 0.3)
    events: list = []
    worker = run(TREE, tmp_path, events, "deaf")
    wait(lambda: worker.poll() is State.RUNNING and events)
    worker.cancel()
    follow(worker)
    assert worker.state is State.CANCELLED
    wait(lambda: gone(events[0]["child"]))


def test_kill_waits_until_nothing_is_left(tree):
    worker, child = tree
    worker.kill()
    assert worker.state is State.CANCELLED and gone(worker.pid)
    wait(lambda: gone(child))


def test_killed_from_outside_is_a_crash_and_takes_its_children_along(tree):
    worker, child = tree
    os.kill(worker.pid, 9)
    follow(worker)
    assert worker.state is State.CRASHED
    wait(lambda: gone(child))

"""Long jobs stop at once, and never in the middle of writing."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from MedShieldLib.control import GRACE_S, Control
from MedShieldLib.errors import Cancelled, InputError


def later(seconds: float, action) -> None:
    threading.Timer(seconds, action).start()


def test_answer_of_the_job_is_returned():
    assert Control().run(lambda: 42) == 42


def test_error_of_the_job_is_raised():
    def job():
        raise InputError("a sentence")

    with pytest.raises(InputError, match="a sentence"):
        Control().run(job)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_a_deaf_job_within_moments(number):
    began = time.monotonic()
    later(0.2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Cancelled):
        Control().run(lambda: time.sleep(10))
    assert time.monotonic() - began < GRACE_S + 1


def test_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    Control().run(lambda: None)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_writing_is_finished_before_a_stop():
    control, written = Control(), []

    def job():
        with control.writing():
            control.cancel()
            time.sleep(GRACE_S + 0.5)
            written.append("all")
        return written

    assert control.run(job) == ["all"]


def test_writing_does_not_begin_after_a_stop():
    control, written = Control(), []

    def job():
        time.sleep(0.3)
        with control.writing():
            written.append("too late")

    later(0.1, control.cancel)
    with pytest.raises(Cancelled):
        control.run(job)
    assert not written


def test_stages_share_the_stop_and_divide_the_progress():
    seen = []
    control = Control(lambda fraction, step: seen.append((round(fraction, 3), step)))
    second = control.stage(0.5, 1.0, "Second")
    second.progress(0.5, "half of it")
    control.cancel()
    assert seen == [(0.75, "Second: half of it")]
    assert second.cancelled()

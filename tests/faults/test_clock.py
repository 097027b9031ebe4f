"""The wall clock of a worker jumps by an hour, as that of a machine that finds its time server."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.support.stage import STREAM, Stage
from tests.waiting import eventually

CONSUMERS = ("Pulled", "PulledInThreads", "Pushed")
HOUR = 3600
GIVE_UP = {"do": "give up"}
# What asks the libc for the time gets that of a file; what asks for the monotonic clock does not.
JUMPING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
    char text[16] = {0};
    int file = open(getenv("CLOCK_JUMP"), O_RDONLY);
    if (file < 0) return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    return size > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += jump();
    return answer;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int answer = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return answer;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""
pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says by how many seconds the wall clock of the workers is wrong."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc), so the clock of a process cannot be moved")
    source, library, clock = (tmp_path / name for name in ("jump.c", "jump.so", "clock"))
    source.write_text(JUMPING)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    clock.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_JUMP", str(clock))
    return clock


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_by_an_hour_disturbs_nothing(
    stage: Stage, clock: Path, hours: int
) -> None:
    stage.attributes |= {"concurrency": 10, "handler_timeout": 5.0}
    worker = stage.work(*CONSUMERS).is_ready()
    mix = [[20, {}], [2, {"seconds": 2}], [1, {"do": "fail", "attempts": 1}], [1, GIVE_UP]]
    producer = stage.produce(600, rate=100, mix=mix)
    stage.goes_on()
    clock.write_text(str(hours * HOUR))
    eventually(lambda: jumped(stage), 20, stage.story)
    stage.passes(stage.attributes["ack_wait"])
    clock.write_text("0")
    stage.goes_on()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)


def jumped(stage: Stage) -> bool:
    """Whether the dead letters show it."""
    now, letters = datetime.now(UTC), stage.witness.messages(f"{STREAM}-dlq")
    times = [datetime.fromisoformat(dict(each.headers)["Dlq-Time"]) for each in letters]
    return any(abs(time - now) > timedelta(minutes=50) for time in times)

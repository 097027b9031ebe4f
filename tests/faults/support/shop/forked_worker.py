"""Publish, fork, and run `manage.py nats_consumer <names>` in the child."""

import os
import signal
import sys

import django
from django.core.management import execute_from_command_line
from orders.publishing import published

django.setup()
published("parent")
child = os.fork()
if child == 0:
    execute_from_command_line(["manage.py", "nats_consumer", *sys.argv[1:]])
    sys.exit()
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))

"""One relay at a time for each database. Several at once would reorder the messages of a key."""

import os
import socket
from datetime import timedelta
from time import monotonic
from uuid import uuid4

from django.db.models import Q
from django.db.models.functions import Now

from .models import RelayLease

LEASE_SECONDS = 10.0
_RENEW_AFTER_SECONDS = 3.0
_NAME = "relay"


class Lease:
    """The right to relay the rows of the database `using`."""

    def __init__(self, using: str) -> None:
        self.holder = f"{socket.gethostname()[:20]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._using = using
        self._renewed = float("-inf")

    def hold(self) -> bool:
        """Take it, or renew it where that is due. Whether it is held for the next batch."""
        asked = monotonic()
        if asked - self._renewed < _RENEW_AFTER_SECONDS:
            return True
        if not self._take():
            return False
        self._renewed = asked
        return True

    def give_back(self) -> None:
        """Let another relay take it at once."""
        self._renewed = float("-inf")
        RelayLease.objects.using(self._using).filter(name=_NAME, holder=self.holder).update(
            holder="", until=Now()
        )

    def _take(self) -> bool:
        leases = RelayLease.objects.using(self._using)
        free = Q(holder=self.holder) | Q(holder="") | Q(until__lt=Now())
        until = Now() + timedelta(seconds=LEASE_SECONDS)
        if leases.filter(free, name=_NAME).update(holder=self.holder, until=until):
            return True
        if leases.filter(name=_NAME).exists():
            return False
        leases.bulk_create([RelayLease(name=_NAME, holder="")], ignore_conflicts=True)
        return bool(leases.filter(free, name=_NAME).update(holder=self.holder, until=until))

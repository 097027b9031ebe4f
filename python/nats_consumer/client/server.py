"""A client's server, as it described itself."""

from urllib.parse import urlsplit


class ServerUrl(str):
    """The address of a server, as a text, and in parts."""

    __slots__ = ()

    @property
    def scheme(self) -> str:
        """`nats` or `tls`."""
        return urlsplit(self).scheme

    @property
    def netloc(self) -> str:
        """Host and port."""
        return urlsplit(self).netloc

    @property
    def hostname(self) -> str | None:
        """The host."""
        return urlsplit(self).hostname

    @property
    def port(self) -> int | None:
        """The port."""
        return urlsplit(self).port

    def geturl(self) -> str:
        """The whole, as a plain text."""
        return str(self)


class ServerVersion(str):
    """The version of a server, as a text, and in numbers."""

    __slots__ = ()

    @property
    def major(self) -> int:
        """2 of "2.15.1"."""
        return self._number(0)

    @property
    def minor(self) -> int:
        """15 of "2.15.1"."""
        return self._number(1)

    @property
    def patch(self) -> int:
        """1 of "2.15.1"."""
        return self._number(2)

    def _number(self, place: int) -> int:
        return int(self.partition("-")[0].split(".")[place])

"""Looking after streams."""

from collections.abc import Mapping
from typing import Any

from nats_consumer.api import AccountInfo, StreamConfig, StreamInfo
from nats_consumer.exceptions import StreamNotFound, SubjectsOverlap
from nats_consumer.names import check_name

from .requests import Requests


class Streams(Requests):
    """The part of JetStream that concerns streams."""

    async def account_info(self) -> AccountInfo:
        """Return the limits and the usage of the account."""
        return AccountInfo.from_response(await self._request("INFO"))

    async def stream_info(self, name: str, subjects_filter: str | None = None) -> StreamInfo:
        """The stream's configuration and state; with `subjects_filter`, `state.subjects` counts
        the messages of each subject that matches. Raises StreamNotFound."""
        body = {"subjects_filter": subjects_filter} if subjects_filter else None
        return StreamInfo.from_response(await self._about("INFO", name, body))

    async def streams_info(self, offset: int = 0) -> list[StreamInfo]:
        """All streams of the account, the first `offset` left out."""
        found = await self._pages("STREAM.LIST", "streams", offset)
        return [StreamInfo.from_response(stream) for stream in found]

    async def stream_names(self, subject: str | None = None) -> list[str]:
        """The streams that have `subject`, or all."""
        return await self._pages(
            "STREAM.NAMES", "streams", body={"subject": subject} if subject else None
        )

    async def find_stream_name_by_subject(self, subject: str) -> str:
        """The stream that has `subject`. Raises StreamNotFound."""
        names = await self.stream_names(subject)
        if not names:
            raise StreamNotFound(
                f"No stream has the subject {subject!r}. Create one with operations.CreateStream."
            )
        return names[0]

    async def add_stream(self, config: StreamConfig | None = None, **params: Any) -> StreamInfo:
        """Create the stream of `config` and `params`. Raises SubjectsOverlap, naming the stream
        that has the subjects, and ApiError."""
        wire = _config(config, params).as_dict()
        return StreamInfo.from_response(await self._configure("CREATE", wire))

    async def update_stream(self, config: StreamConfig | None = None, **params: Any) -> StreamInfo:
        """Change the fields that are given and keep the others, but for a duplicate_window that is
        longer than a max_age that is given. None, as a keyword or in `config.evolve()`, takes the
        field away: `mirror=None` makes a stream of a mirror. Raises StreamNotFound and, like
        add_stream, SubjectsOverlap and ApiError."""
        whole = _config(config, params)
        wire = whole.as_dict()
        present = (await self._about("INFO", wire["name"]))["config"]
        kept = {name: value for name, value in present.items() if name not in whole.taken_away}
        return StreamInfo.from_response(await self._configure("UPDATE", merged(kept, wire)))

    async def delete_stream(self, name: str) -> bool:
        """Delete the stream with all its messages. Raises StreamNotFound."""
        return bool((await self._about("DELETE", name))["success"])

    async def purge_stream(
        self,
        name: str,
        seq: int | None = None,
        subject: str | None = None,
        keep: int | None = None,
    ) -> bool:
        """Delete the stream's messages: those before `seq`, those of `subject`, all but the last
        `keep`; without any of these, all. Raises StreamNotFound."""
        wanted = {"seq": seq, "filter": subject, "keep": keep}
        body = {name: value for name, value in wanted.items() if value}
        return bool((await self._about("PURGE", name, body))["success"])

    async def _about(
        self, verb: str, stream: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        check_name(stream, "name of a stream")
        return await self._request_about(stream, f"STREAM.{verb}.{stream}", body)

    async def _configure(self, verb: str, wire: dict[str, Any]) -> dict[str, Any]:
        name = wire["name"]
        try:
            return await self._about(verb, name, wire)
        except SubjectsOverlap as error:
            raise await self._overlap(name, wire.get("subjects") or [name]) from error

    async def _overlap(self, stream: str, subjects: list[str]) -> SubjectsOverlap:
        owners = [
            f"{subject!r} belongs to stream {owner!r}"
            for subject in subjects
            for owner in await self.stream_names(subject)
            if owner != stream
        ]
        # The server also refuses subjects that overlap one another within the one stream.
        clash = "; ".join(owners) or f"they overlap one another: {subjects}"
        return SubjectsOverlap(
            f"Stream {stream!r} cannot have these subjects: {clash}. Give each subject to one "
            "stream only."
        )


def merged(present: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a stream after the `changes`; all as it goes over the wire."""
    after = {**present, **changes}
    age, window = after.get("max_age") or 0, after.get("duplicate_window") or 0
    # The server refuses a window that is longer than the age.
    if "duplicate_window" not in changes and 0 < age < window:
        after["duplicate_window"] = age
    return after


def _config(config: StreamConfig | None, params: Mapping[str, Any]) -> StreamConfig:
    whole = StreamConfig.coerce(config or {}).evolve(**params)
    if not whole.name:
        raise ValueError("A stream needs a name.")
    return whole

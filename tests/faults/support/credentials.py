"""An operator, an account and users whose credentials expire, made as `nsc` would."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

_EVERYTHING = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
_JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
_NO_LIMITS = dict.fromkeys(("subs", "data", "payload"), -1)


class Authority:
    """An operator with an account that may use JetStream."""

    def __init__(self) -> None:
        self._operator = _key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = _key(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = _key(nkeys.PREFIX_BYTE_ACCOUNT)

    def configuration(self) -> str:
        """Return their part of the server's configuration."""
        system = _public(self._system)
        operator = {"type": "operator", "version": 2, "system_account": system}
        return (
            f"operator: {_token(self._operator, _public(self._operator), operator)}\n"
            f"system_account: {system}\n"
            "resolver: MEMORY\n"
            "resolver_preload: {\n"
            f"  {system}: {self._account_token(self._system, {})}\n"
            f"  {_public(self._account)}: {self._account_token(self._account, _JETSTREAM)}\n"
            "}\n"
        )

    def write_user(self, path: Path, valid_for: float) -> None:
        """Write the credentials of a new user, who may do everything for this number of seconds."""
        user = _key(nkeys.PREFIX_BYTE_USER)
        claims = {"type": "user", "version": 2, "pub": {}, "sub": {}, **_NO_LIMITS}
        token = _token(self._account, _public(user), claims, int(time.time() + valid_for))
        text = (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n"
            "------END USER NKEY SEED------\n"
        )
        fresh = path.with_suffix(".fresh")
        fresh.write_text(text)
        fresh.replace(path)

    def _account_token(self, account: nkeys.KeyPair, more: dict[str, int]) -> str:
        limits = {**_EVERYTHING, "wildcards": True, **more}
        claims = {"type": "account", "version": 2, "limits": limits}
        return _token(self._operator, _public(account), claims)


def _key(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def _public(key: nkeys.KeyPair) -> str:
    return str(key.public_key.decode())


def _token(
    issuer: nkeys.KeyPair, subject: str, nats: dict[str, Any], expires: int | None = None
) -> str:
    claims = {"iat": int(time.time()), "iss": _public(issuer), "sub": subject, "nats": nats}
    claims |= {"name": subject} | ({"exp": expires} if expires else {})
    digest = hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_encoded(issuer.sign(signed.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

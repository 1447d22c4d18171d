"""The keys that sign Airflow's tokens: a pair for the tokens of tasks, and another for those of users.

The operator's file holds the private key. Who signs mounts it, who verifies mounts the public keys that it trusts.
Older versions signed all tokens with one shared secret, FORMER, which is taken over in `rolling.replace_outdated`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ops.compose import Instance
    from ops.project import Project
    from ops.rotation_state import InUse

TASKS: Final = "jwt_tasks_key"
USERS: Final = "jwt_users_key"
TRUSTED: Final = {TASKS: "jwt_tasks_trusted.json", USERS: "jwt_users_trusted.json"}
"""The file of the trusted public keys, by the key that signs."""
READER: Final = "tokens"
"""The folder of these files under secrets/mounted/."""
VERIFIER: Final = "execution-api"
FORMER: Final = "jwt_secret"
FORMER_SECONDS: Final = 3600.0
"""A task's last token of the former secret expires after 600 s, and is accepted for 570 s more (JWT_LEEWAY)."""

VALID_SECONDS: Final = {TASKS: FORMER_SECONDS, USERS: 25 * 3600.0}
"""Seconds for which a token of a key may be valid after the key signed its last one. Users' tokens live for a day."""


def private_key() -> str:
    """Return a new Ed25519 key as the body of a PEM file: PKCS #8 in base64, one line."""
    key = Ed25519PrivateKey.generate()
    return base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


def loaded(text: str) -> Ed25519PrivateKey | None:
    """Return the key of a secret file; None if the text is not an Ed25519 key."""
    try:
        key = load_der_private_key(base64.b64decode(text, validate=True), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def check(project: Project, name: str, text: str) -> None:
    """Refuse a file that is not an Ed25519 key.

    Raises:
        StackError: The error names the file.
    """
    if loaded(text) is None:
        raise StackError(
            f"cannot use the secret {name}: it is not an Ed25519 key",
            where=project.shown(project.secrets / name),
            hint="write the output of `openssl genpkey -algorithm ed25519 -outform DER | base64 -w0` into the file",
        )


def unpadded(data: bytes) -> str:
    """Return bytes as the base64url of JSON Web Keys (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_key(text: str) -> dict[str, str]:
    """Return the public half as a JSON Web Key; its id is the thumbprint that Airflow derives (RFC 7638)."""
    key = loaded(text)
    if key is None:
        raise ValueError("not an Ed25519 key")
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    members = {"crv": "Ed25519", "kty": "OKP", "x": unpadded(public)}
    thumbprint = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**members, "kid": unpadded(thumbprint)}


def former_key(secret: str) -> dict[str, str]:
    """Return the former secret as a JSON Web Key, with the id that Airflow gives to tokens of a secret."""
    return {"kty": "oct", "alg": "HS512", "k": unpadded(secret.encode()), "kid": "not-used"}


def former(project: Project) -> str:
    """Return the former secret; empty without one."""
    path = project.secrets / FORMER
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def mounted_files(project: Project, secrets: InUse) -> dict[str, str]:
    """Return the text of each file about tokens that containers mount, by its path under secrets/mounted/.

    Running tasks have tokens of the former secret, so those are accepted for a while. Users log in again instead.
    """
    files = {}
    for name, trusted in TRUSTED.items():
        # In one order, so that verifiers need no new file when another of these keys signs.
        keys = sorted(map(public_key, secrets.accepted(name)), key=lambda key: key["kid"])
        if name == TASKS and (secret := former(project)):
            keys.append(former_key(secret))
        private = secrets.current[name]
        files[f"{READER}/{name}"] = f"-----BEGIN PRIVATE KEY-----\n{private}\n-----END PRIVATE KEY-----\n"
        files[f"{READER}/{trusted}"] = json.dumps({"keys": keys})
    return files


def are_taken_over(project: Project, verifiers: Iterable[Instance]) -> bool:
    """Return whether a container of these still verifies tokens with the former secret."""
    path = project.secrets / TASKS
    if not former(project) or not path.exists():
        return False
    return any(instance.created < path.stat().st_mtime for instance in verifiers)


def forget_former(project: Project, verifiers: Iterable[Instance]) -> bool:
    """Delete the former secret once no valid token of it is left, and return whether it was deleted.

    Args:
        project: The stack.
        verifiers: The containers of the Execution API, which sign new tokens as soon as they are created.
    """
    newest = max((instance.created for instance in verifiers), default=time.time())
    if not former(project) or are_taken_over(project, verifiers) or time.time() - newest < FORMER_SECONDS:
        return False
    (project.secrets / FORMER).unlink()
    return True

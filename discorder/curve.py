"""Write and read the CURVE key files of the bus and of bots, in the format of `zmq.auth` that other ZeroMQ programs read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from discorder.errors import ConfigError, UnusableFile
from discorder.paths import is_open_to_others, resolve_path

PUBLIC_SUFFIX = ".key"
SECRET_SUFFIX = ".key_secret"  # noqa: S105  # of a file's name
_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # Z85, 32 bytes


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both keys in Z85, 40 characters each. The repr shows only the public one."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.decode()!r})"


def generate(name: Path) -> tuple[Path, Path, str]:
    """Write a new pair to ``name``.key (public) and ``name``.key_secret (0600); returns both paths and the public key.

    Raises ConfigError when one of the files exists, UnusableFile when they cannot be written.
    """
    public, secret = (key.decode() for key in zmq.curve_keypair())
    public_file, secret_file = (name.with_name(name.name + suffix) for suffix in (PUBLIC_SUFFIX, SECRET_SUFFIX))
    for path in (public_file, secret_file):
        if path.exists():
            msg = f"{path} exists; choose another name, or remove it first"
            raise ConfigError(msg)
    lines = f'curve\n    public-key = "{public}"\n'
    _write(secret_file, 0o600, f'# CURVE key pair: keep it secret\n{lines}    secret-key = "{secret}"\n')
    _write(public_file, 0o644, f"# CURVE public key\n{lines}")
    return public_file, secret_file, public


def load_pair(setting: str | os.PathLike[str], key: str) -> KeyPair:
    """Return the pair in a secret file, ``~`` expanded. ``key``: the name of the setting, for the error.

    Raises ConfigError for a file that is missing, contains no secret key, or is readable by other users.
    """
    path = Path(setting)
    try:
        path = resolve_path(setting)
        if is_open_to_others(path.stat()):
            msg = f"{key}: {path} can be read by others than its owner; chmod 600 {path}"
            raise ConfigError(msg)
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        msg = f"{key}: {path} is no key file that can be read ({error}); discorder keygen NAME writes one"
        raise ConfigError(msg) from error
    if secret is None or not is_key(secret.decode()):
        msg = f"{key}: {path} holds no secret key; name the file that ends in {SECRET_SUFFIX}"
        raise ConfigError(msg)
    return KeyPair(public, secret)


def is_key(text: str) -> bool:
    """Whether ``text`` can be a key: 40 characters of Z85."""
    return _KEY.fullmatch(text) is not None


def _write(path: Path, mode: int, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(text)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise UnusableFile(msg) from error

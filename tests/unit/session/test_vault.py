"""A sealed value opens for its own session and field, with a key of the file, and in no other way."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.secret import Secret
from services.session.adapters.vault import KeyFileError, SealError, Vault
from services.session.domain.values import SessionKey

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
SESSION, OTHER_SESSION = SessionKey("a" * 40), SessionKey("b" * 40)
SECRET = Secret("correct horse battery staple")


def a_file(folder: Path, content: bytes, mode: int = 0o400) -> Path:
    path = folder / "kek"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@given(st.text())
def test_what_was_sealed_opens(text: str) -> None:
    vault = Vault([KEY])
    sealed = vault.seal(SESSION, "password", Secret(text))
    assert vault.open(SESSION, "password", sealed).reveal() == text


def test_the_same_secret_looks_different_every_time() -> None:
    vault = Vault([KEY])
    one, other = (vault.seal(SESSION, "password", SECRET) for _ in range(2))
    assert one[9:] != other[9:]
    assert SECRET.reveal().encode() not in one


@pytest.mark.parametrize(("session", "field"), [(OTHER_SESSION, "password"), (SESSION, "email")])
def test_a_value_moved_to_another_session_or_field_does_not_open(session: SessionKey, field: str) -> None:
    vault = Vault([KEY])
    sealed = vault.seal(SESSION, "password", SECRET)
    with pytest.raises(SealError):
        vault.open(session, field, sealed)
    with pytest.raises(SealError):
        Vault([OTHER_KEY, KEY]).rewrap(session, field, sealed)


def test_a_value_changed_in_any_byte_does_not_open() -> None:
    vault = Vault([KEY])
    sealed = vault.seal(SESSION, "password", SECRET)
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        with pytest.raises(SealError):
            vault.open(SESSION, "password", bytes(damaged))
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            vault.open(SESSION, "password", sealed[:length])


def test_another_key_does_not_open() -> None:
    sealed = Vault([KEY]).seal(SESSION, "password", SECRET)
    with pytest.raises(SealError):
        Vault([OTHER_KEY]).open(SESSION, "password", sealed)


def test_rotation_changes_the_wrapping_and_not_the_ciphertext() -> None:
    sealed = Vault([KEY]).seal(SESSION, "password", SECRET)
    both = Vault([OTHER_KEY, KEY])
    assert both.open(SESSION, "password", sealed) == SECRET
    rotated = both.rewrap(SESSION, "password", sealed)
    assert rotated[69:] == sealed[69:]
    assert both.rewrap(SESSION, "password", rotated) == rotated
    assert Vault([OTHER_KEY]).open(SESSION, "password", rotated) == SECRET
    with pytest.raises(SealError):
        Vault([KEY]).open(SESSION, "password", rotated)


def test_a_key_file_holds_raw_bytes_or_lines_of_base64_with_the_current_key_first(tmp_path: Path) -> None:
    raw = Vault.from_file(a_file(tmp_path, KEY))
    sealed = raw.seal(SESSION, "password", SECRET)
    (tmp_path / "kek").unlink()
    lines = b"\n".join((b"# keys", base64.b64encode(OTHER_KEY) + b"  # since May", b"", base64.b64encode(KEY)))
    listed = Vault.from_file(a_file(tmp_path, lines, 0o600))
    assert listed.open(SESSION, "password", sealed) == SECRET
    assert Vault([OTHER_KEY]).open(SESSION, "password", listed.seal(SESSION, "password", SECRET)) == SECRET


@pytest.mark.parametrize(
    "content",
    [b"", b"short", KEY + b"x", base64.b64encode(b"short"), os.urandom(64), b"# only"],
    ids=["empty", "short", "long", "short base64", "noise", "comment"],
)
def test_a_malformed_key_file_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(KeyFileError) as refused:
        Vault.from_file(a_file(tmp_path, content))
    assert str(tmp_path / "kek") in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o644, 0o440, 0o660, 0o404, 0o700])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFileError):
        Vault.from_file(a_file(tmp_path, KEY, mode))


def test_a_missing_key_file_is_refused_and_never_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        Vault.from_file(tmp_path / "kek")
    assert not (tmp_path / "kek").exists()

"""Becomes the program it is told to be, once its life is tied to the supervisor's.

Run as ``python -I -S launch.py DEATH_SIGNAL PARENT_PID USER -- PROGRAM…``. USER is ``-`` (stay who you are),
``UID:GID`` or ``UID:GID:search``. The supervisor could do this between fork and exec, but Python code there is not
safe in a process with threads, and gRPC has threads.
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _become(user: str) -> None:
    uid, gid, *search = user.split(":")
    libc = ctypes.CDLL(None, use_errno=True)
    if search:
        _checked(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    if search:
        # The folders above the checkout are closed to that user (root's home): let the program pass through them
        # instead of opening them to everybody.
        mask = 1 << _CAP_DAC_OVERRIDE
        sets = (_Sets * 2)(_Sets(mask, mask, mask), _Sets(0, 0, 0))
        _checked(libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), sets))
        _checked(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def main() -> None:
    """Read the arguments, prepare this process, become the program."""
    death_signal, parent, user, separator, *program = sys.argv[1:]
    if separator != "--":
        raise SystemExit("usage: launch.py DEATH_SIGNAL PARENT_PID USER -- PROGRAM...")
    # A core file would hold every secret that the process has in memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if user != "-":
        _become(user)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        _checked(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0))
        if os.getppid() != int(parent):
            raise SystemExit("the supervisor is gone")
    os.execvp(program[0], program)  # noqa: S606  # no shell is wanted; the supervisor chose the program


if __name__ == "__main__":
    main()

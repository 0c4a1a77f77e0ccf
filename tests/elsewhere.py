"""Takes from an interpreter what only POSIX has. Each one that tests/test_platforms.py starts calls it first."""

import os
import subprocess
import sys

import psutil  # noqa: F401 - its part for Linux needs what is taken away; that for Windows does not

MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog")
CALLS = (
    "fork", "forkpty", "setsid", "killpg", "getpgid", "getpgrp", "setpgid", "getuid", "geteuid", "getgid", "getegid",
    "getgroups", "sched_getaffinity", "sched_setaffinity", "nice", "wait3", "wait4", "waitid", "mkfifo", "fchown",
    "getloadavg", "memfd_create", "pidfd_open", "statvfs",
)  # fmt: skip
"""Of `os`. Python's own library uses some others where it finds that the platform is POSIX."""
OPTIONS = ("pass_fds", "process_group", "preexec_fn", "start_new_session", "user", "group", "umask")
"""Of `subprocess.Popen`, which Windows refuses."""


class _Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def block():
    """Take them away from this interpreter."""
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Blocker())
    for name in CALLS:
        if hasattr(os, name):
            delattr(os, name)
    start = subprocess.Popen.__init__

    def refuse(self, *arguments, **options):
        if given := [name for name in OPTIONS if options.get(name) not in (None, (), False)]:
            raise ValueError(f"{given[0]} is not supported on this platform")
        start(self, *arguments, **options)

    subprocess.Popen.__init__ = refuse

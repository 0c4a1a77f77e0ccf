"""What a confined process can still do: each attempt is made in a real one."""

import json
import os
import platform
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest

from onnxtool.sandbox import landlock
from onnxtool.sandbox.launch import confinement, environment
from onnxtool.sandbox.limits import Limits

ATTEMPTS = """
import ctypes, errno, json, mmap, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
import onnxtool.sandbox.confine as confine

def tried(attempt):
    try:
        return f"done: {attempt()}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def raw_socket_call():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.socket(2, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "socket")

def large(path):
    with path.open("wb") as file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        file.truncate(2 << 30)

def in_a_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(tried(lambda: Path(secret).read_text())))
    thread.start()
    thread.join()
    return results[0]

def fork():
    if os.fork() == 0:
        os._exit(0)

shmget = {"x86_64": 29, "aarch64": 194}[os.uname().machine]

def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    found = libc.syscall(*(ctypes.c_long(value) for value in (number, *arguments)))
    if found < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return found

secret, outside, own, given, parent = sys.argv[1:]
print(json.dumps({
    "missing": confine.missing,
    "internet": tried(lambda: socket.socket(socket.AF_INET)),
    "internet 6": tried(lambda: socket.socket(socket.AF_INET6)),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
    "raw call": tried(raw_socket_call),
    "pair": tried(lambda: len(socket.socketpair())),
    "read": tried(lambda: Path(secret).read_text()),
    "list": tried(lambda: os.listdir(Path(secret).parent)),
    "link": tried(lambda: (Path(own, "link").symlink_to(secret), Path(own, "link").read_text())),
    "hard link": tried(lambda: (Path(own, "hard").hardlink_to(secret), Path(own, "hard").read_text())),
    "thread": in_a_thread(),
    "fork": tried(fork),
    "a session of its own": tried(os.setsid),
    "a group of its own": tried(lambda: os.setpgid(0, 0)),
    "shared memory of System V": tried(lambda: call(shmget, 0, 4096, 0o1600)),
    "memory file": tried(lambda: os.memfd_create("x")),
    "shared memory of nobody": tried(lambda: len(mmap.mmap(-1, 1 << 20))),
    "memory of its own": tried(lambda: len(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))),
    "rights of given": tried(lambda: os.chmod(given, 0o777)),
    "owner of given": tried(lambda: os.chown(given, 12345, 12345)),
    "times of given": tried(lambda: os.utime(given, (1, 1))),
    "attributes of given": tried(lambda: os.setxattr(given, "user.x", b"x")),
    "large file": tried(lambda: large(Path(own, "large"))),
    "given": tried(lambda: Path(given).read_text()),
    "change given": tried(lambda: Path(given).write_text("x")),
    "write": tried(lambda: Path(outside, "new").write_text("x")),
    "remove": tried(lambda: Path(outside, "old").unlink()),
    "rename": tried(lambda: Path(outside, "old").rename(Path(own, "old"))),
    "own": tried(lambda: Path(own, "new").write_text("x")),
    "run": tried(lambda: subprocess.run(["/bin/true"], check=True)),
    "run python": tried(lambda: subprocess.run([sys.executable, "-c", ""], check=True)),
    "signal": tried(lambda: os.kill(int(parent), 0)),
    "environment of the parent": tried(lambda: Path(f"/proc/{parent}/environ").read_bytes()),
    "memory of the parent": tried(lambda: open(f"/proc/{parent}/mem", "rb")),
    "secret in the environment": tried(lambda: os.environ["AWS_SECRET_ACCESS_KEY"]),
    "memory": tried(lambda: len(bytearray(2 << 30))),
    "files": tried(lambda: [open("/dev/null") for _ in range(200)]),
    "more memory": tried(lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
}))
"""


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """What came of each attempt."""
    folder = tmp_path_factory.mktemp("confined")
    for name in ("home", "outside", "own", "code"):
        (folder / name).mkdir()
    (folder / "home" / "secret").write_text("token")
    (folder / "outside" / "old").write_text("old")
    (folder / "given").write_text("model")
    (folder / "code" / "attempts.py").write_text(textwrap.dedent(ATTEMPTS))
    confined = confinement(Limits(memory=1 << 30, files=64), [folder / "own"], [folder / "given"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "token")
        variables = environment(folder / "own")
    variables["PYTHONPATH"] += os.pathsep + str(folder / "code")
    places = [folder / "home" / "secret", folder / "outside", folder / "own", folder / "given", os.getpid()]
    command = [sys.executable, "-P", "-m", *confined, "attempts", *map(str, places)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# A kernel without Landlock, or another system, says so in `missing`, and the reports do; see the last test.
ENFORCED = {
    "network": ["internet", "internet 6", "unix", "raw call"],
    "files": ["read", "list", "link", "hard link", "thread", "change given", "write", "remove", "rename"],
    "processes": ["fork", "a session of its own", "a group of its own"],
    "memory": ["shared memory of System V", "memory file", "shared memory of nobody"],
    "rights": ["rights of given", "owner of given", "times of given", "attributes of given"],
    "programs": ["run", "run python"],
    "parent": ["environment of the parent", "memory of the parent"],
}


def enforced_here():
    here = sys.platform == "linux"
    return {
        "network": here and platform.machine() in ("x86_64", "aarch64"),
        "files": here and landlock.version() > 0,
        **dict.fromkeys(("processes", "memory", "rights"), here and platform.machine() in ("x86_64", "aarch64")),
        "programs": here and landlock.version() > 0,
        "parent": here and landlock.version() > 0,
    }


@pytest.mark.parametrize("kind", ENFORCED)
def test_what_is_given_up_is_refused(attempts, kind):
    for attempt in ENFORCED[kind]:
        refused = any(word in attempts[attempt] for word in ("PermissionError", "[Errno 13]", "[Errno 18]"))
        assert refused == enforced_here()[kind], (attempt, attempts[attempt])


def test_what_is_missing_is_reported(attempts):
    enforced = enforced_here()
    lacks = {
        "network": "network" in " ".join(attempts["missing"]),
        "files": "other files" in " ".join(attempts["missing"]),
    }
    assert lacks == {"network": not enforced["network"], "files": not enforced["files"]}


def test_its_own_folder_its_file_and_pairs_of_sockets_work(attempts):
    assert attempts["own"] == "done: 1"
    assert attempts["given"] == "done: model"
    assert attempts["pair"] == "done: 2"


def test_memory_and_files_are_limited_for_good(attempts):
    assert attempts["memory"].startswith("MemoryError")
    assert "Errno 24" in attempts["files"]
    assert attempts["more memory"].startswith(("ValueError", "PermissionError"))
    assert attempts["core"] == [0, 0]
    assert "Errno 27" in attempts["large file"]
    assert attempts["memory of its own"] == f"done: {1 << 20}"


def test_credentials_in_the_environment_stay_behind(attempts):
    assert attempts["secret in the environment"].startswith("KeyError")


def test_bounds_are_plain_text():
    text = confinement(Limits(memory=1 << 30), [Path("/a b")], [Path("/ü")])[1]
    assert json.loads(text)["limits"] == asdict(Limits(memory=1 << 30))
    assert json.loads(text)["writable"] == ["/a b"]

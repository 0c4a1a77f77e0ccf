"""What holds for all tests."""

import os
import signal

from hypothesis import settings

# How long an example takes is the machine's business, and no test's.
# The examples are the same in every run, so that luck decides nothing; `--hypothesis-profile random` draws others.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("same")

# Workers of pytest-xdist share the cores: each takes its share, and not all of them.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = str(max(1, (os.cpu_count() or 1) // int(workers)))
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", threads)

# A shell that starts the tests in the background lets them ignore Ctrl-C, and commands under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

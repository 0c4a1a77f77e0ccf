"""What holds for all tests."""

from hypothesis import settings

# How long an example takes is the machine's business, and no test's.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

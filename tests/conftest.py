"""What every test shares: hypothesis profiles. `make test-long` runs with the profile `long`."""

from __future__ import annotations

from hypothesis import settings

# No deadline: the machines that run these tests share their cores, so the time of one example says nothing.
settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile("default")

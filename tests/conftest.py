"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about what else the machine does than about the example.
settings.register_profile("xlvs", deadline=None)
settings.load_profile("xlvs")

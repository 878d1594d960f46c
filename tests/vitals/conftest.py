"""Property tests here share slow machines: no example may fail for taking long."""

from hypothesis import settings

settings.register_profile("vitals", deadline=None, max_examples=60)
settings.load_profile("vitals")

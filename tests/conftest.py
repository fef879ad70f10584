"""What holds for every test: no test measures time, Hypothesis's own deadline for an example neither."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

"""Draws of Hypothesis: the same on every run, so that a change alone turns a test red.

``make explore`` draws afresh and prints what reproduces a failure.
"""

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("afresh", print_blob=True)
settings.load_profile("same")

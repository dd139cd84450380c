"""Where the tests find the project, its documents and their own tables; how they start it."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
DOCS = ROOT / "docs"
DATA = TESTS / "data"
PUBLISHED = ROOT / "scripts" / "validation"  # tables that ship with the validations

# In front of a command: it heeds Ctrl-C even where the tests run behind a shell that ignores it.
HEEDING = ("env", "--default-signal=INT")

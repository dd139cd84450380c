"""The accelerators: one file per machine."""

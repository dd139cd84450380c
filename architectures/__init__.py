"""The accelerators: one file a machine."""

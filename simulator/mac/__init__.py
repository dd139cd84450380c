"""Functional MAC cores: the arithmetic of each datapath, and the work it takes, in one pass.

Each core is a numba kernel beside a plain Python twin of the same signature, which is its
specification. The pass that computes the numbers is the pass that counts the work.
"""

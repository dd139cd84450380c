"""The top-level folders are installed as subpackages of ``sparqsim``; all else: pyproject.toml."""

from setuptools import find_packages, setup

PARTS = ("simulator", "architectures", "workloads", "scripts")

setup(
    packages=[
        "sparqsim",
        "sparqsim.sweeps",  # TOML files alone
        *(f"sparqsim.{name}" for name in find_packages(include=[f"{part}*" for part in PARTS])),
    ],
    package_dir={"sparqsim": "sparqsim", "sparqsim.sweeps": "sweeps"}
    | {f"sparqsim.{part}": part for part in PARTS},
)

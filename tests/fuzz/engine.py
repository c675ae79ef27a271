"""Runs one target under atheris: `python -m tests.fuzz.engine TARGET CORPUS... [-libfuzzer options]`; started by the package."""

import sys

import atheris

with atheris.instrument_imports(include=["labbridge"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].run)
    atheris.Fuzz()

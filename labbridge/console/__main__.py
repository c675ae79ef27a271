"""`python -m labbridge.console -c labbridge.toml`: the console's process; the daemon starts it."""

import argparse
import sys
from pathlib import Path

from labbridge import config
from labbridge.console import app


def main() -> int:
    """Runs the console; 78 where the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="labbridge.console", description="The console; `labbridge run` starts it.")
    parser.add_argument("-c", "--config", type=Path, default=Path("labbridge.toml"))
    path = parser.parse_args().config
    try:
        settings = config.load(path)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 78
    if settings.console.listen is None:
        print(f"{path}: [console] has no listen: the console is off", file=sys.stderr)
        return 78
    app.run(settings, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

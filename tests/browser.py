"""What the browser tests need: a Chromium, and a font with Chinese characters.

``python -m tests.browser`` gets them where it may (as root on a Debian), and says plainly what is left out where it may not;
in continuous integration (``CI`` is set) nothing may be left out, and it fails instead.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-noto-cjk")


def chromium() -> str:
    """Where the system's Chromium is; empty where there is none."""
    return os.environ.get("LABBRIDGE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")


def chinese() -> bool:
    """Whether a font of the system has Chinese characters."""
    if shutil.which("fc-list") is None:
        return False
    return bool(subprocess.run(["fc-list", ":lang=zh", "family"], capture_output=True, check=False).stdout.strip())


CHROMIUM, CHINESE = chromium(), chinese()


def _install() -> None:
    """Asks apt for both, where this process may."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wanted = [name for name, there in zip(PACKAGES, (CHROMIUM, CHINESE), strict=True) if not there]
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *wanted, "fontconfig"]):
        ran = subprocess.run(["apt-get", "--quiet", *command], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            print("\n".join((ran.stdout + ran.stderr).splitlines()[-5:]), file=sys.stderr)
            return


def main() -> int:
    """Gets what is missing, or says what is left out."""
    if not (CHROMIUM and CHINESE):
        _install()
    missing = []
    if not chromium():
        missing.append("no Chromium: the tests of the console's pages")
    if not chinese():
        missing.append("no Chinese font: the look at Chinese pages")
    for line in missing:
        print(f"LEFT OUT for {line}. As root on Debian: apt-get install {' '.join(PACKAGES)}", file=sys.stderr)
    return int(bool(missing and os.environ.get("CI")))


if __name__ == "__main__":
    sys.exit(main())

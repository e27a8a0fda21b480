"""Makes the pictures of docs/page.md anew, of the bundled models.

python -m tests.page.pictures
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.clients.conftest import serving
from tests.page.conftest import BROWSERS, HERE, ROOT

FOLDER = ROOT / "docs" / "page"


def main() -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("there is no chromium (Debian: apt-get install chromium)", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    with serving() as service:
        command = ["node", str(HERE / "pictures.mjs"), service.target, browser, str(FOLDER)]
        return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

"""A headless Chromium that opens a page, runs a probe in it, and tells what happened."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(FOUND is None, reason="there is no Chromium here")
PROBE = """<script>
(async () => {
  const found = {};
  try { await (async found => { %s })(found); } catch (error) { found.error = String(error); }
  found.requests = performance.getEntriesByType('resource').map(each => each.name);
  const told = document.createElement('pre');
  told.id = 'probe';
  told.textContent = JSON.stringify(found);
  document.body.append(told);
})();
</script>"""


@dataclass(frozen=True)
class Opened:
    """What a probe found, and the lines of the browser's console."""

    found: dict[str, Any]
    console: list[str]


def opened(text: str, folder: Path, probe: str = "", width: int = 1400) -> Opened:
    """Open a page and run a probe, JavaScript that fills ``found``, under the page's own policy."""
    assert FOUND is not None
    script = PROBE % probe
    digest = hashlib.sha256(script[8:-9].encode()).digest()
    allowed = f"script-src 'sha256-{base64.b64encode(digest).decode()}' "
    page = folder / "page.html"
    assert text.count("script-src ") == 1
    probed = text.replace("script-src ", allowed).replace("</body>", f"{script}</body>")
    page.write_text(probed, encoding="utf-8")
    ended = subprocess.run(
        [
            FOUND, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1000",
            "--virtual-time-budget=20000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (told,) = re.findall(r'<pre id="probe">(.*?)</pre>', ended.stdout, re.DOTALL)
    plain = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in ended.stderr.splitlines() if ":CONSOLE:" in line]
    return Opened(json.loads(plain), console)

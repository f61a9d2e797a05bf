"""The picture of the dashboard in the README: the page of Table 6's report, in Chromium.

python experiments/screenshot.py      # writes experiments/dashboard.png and dashboard-dark.png
"""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
SIZE = {"width": 1400, "height": 1180}

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
    )
    for scheme, name in (("light", "dashboard.png"), ("dark", "dashboard-dark.png")):
        page = browser.new_page(viewport=SIZE, color_scheme=scheme)
        page.goto((HERE / "table6_geometry" / "report.html").as_uri())
        page.get_by_role("heading", name="Curves").wait_for()
        page.screenshot(path=HERE / name)
    browser.close()

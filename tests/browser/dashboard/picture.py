"""Makes docs/images/dashboard.png and dashboard-phone.png anew: `scripts/browser --picture`."""

import pathlib
import sys

from playwright.sync_api import expect

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import chromium
from mock import realistic

IMAGES = pathlib.Path(__file__).resolve().parents[3] / "docs/images"


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    mock = realistic().start()
    try:
        with chromium.launched() as browser:
            for name, width, height, colours in (
                ("dashboard.png", 1280, 1120, "light"),
                ("dashboard-phone.png", 390, 844, "dark"),
            ):
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme=colours,
                    reduced_motion="reduce",
                    locale="en-GB",
                    timezone_id="UTC",
                    bypass_csp=True,
                )
                page.goto(mock.url)
                # The system's own font differs from machine to machine.
                page.add_style_tag(content=":root { --text: Roboto, sans-serif }")
                page.wait_for_selector("#gateways-rows tr")
                page.wait_for_selector(".attention .items button")
                page.wait_for_selector("#chart-delay .plot .line.second")
                expect(page.locator("#tiles")).to_contain_text("cores")
                page.screenshot(path=folder / name)
                page.close()
    finally:
        mock.close()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)

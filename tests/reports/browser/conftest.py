"""Tests of pages in a real browser.

They are skipped where Chromium or selenium is missing; with ENA_BENCH_BROWSER=required they fail.
"""

import json
import os
import shutil

import pandas as pd
import pytest

from reports import document, html

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
DESKTOP, PHONE = (1280, 900), (360, 740)


def _absent():
    """Why no browser can be started, or None."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError:
        missing.append("selenium")
    return f"{' and '.join(missing)} not installed" if missing else None


class Window:
    """A page in Chromium: opened, measured, typed into."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, *, size=DESKTOP, dark=False, scripts=True):
        """Load a file as somebody who double-clicks it does; forget what was logged before."""
        width, height = size
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        scheme = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.as_uri())
        return self

    def command(self, name, **parameters):
        """A command of the browser's own protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script, *arguments):
        """What an expression in the page gives."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def one(self, selector):
        """The first element of a selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        """Every element of a selector."""
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        """The text of an element, shown or not."""
        return self.one(selector).get_property("textContent")

    def click(self, selector):
        """Click where the element is, as a hand does."""
        found = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def focus(self, place):
        """Give the focus to a selector's first element, or to an element."""
        self.run("arguments[0].focus()", self.one(place) if isinstance(place, str) else place)

    def press(self, *names):
        """Press keys such as `ARROW_RIGHT` on whatever has the focus."""
        from selenium.webdriver import ActionChains, Keys

        ActionChains(self.driver).send_keys(*(getattr(Keys, name) for name in names)).perform()

    def hover(self, selector):
        """Bring the pointer over the middle of an element."""
        from selenium.webdriver import ActionChains

        found = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        ActionChains(self.driver).move_to_element(found).perform()

    def choose(self, label):
        """Click the radio button with a label."""
        (found,) = [e for e in self.all("#controls label") if e.text == label]
        found.click()

    def complaints(self):
        """What the console says."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses that the page asked for."""
        entries = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]


@pytest.fixture(scope="session")
def _driver(tmp_path_factory):
    reason = _absent()
    if reason and os.environ.get("ENA_BENCH_BROWSER") == "required":
        pytest.fail(f"{reason}, and ENA_BENCH_BROWSER=required")
    if reason:
        pytest.skip(f"{reason}: apt-get install chromium chromium-driver; pip install selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def page_of():
    """Writes the page of rows into a directory, without the figures that take long to draw."""

    def write(rows, folder, *, title):
        content = document.compose(pd.DataFrame(rows), title=title, problems=[])
        path = folder / "report.html"
        path.write_text(html.page(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def window(_driver):
    """An open browser; the page that it shows is left to the test."""
    return Window(_driver)

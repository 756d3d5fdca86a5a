"""Take the screenshots of the documentation, ``docs/images``: ``make screenshots``.

A sample site of its own is started, and Chromium looks at it as a member of the staff, in light and dark. Each picture
is of a page that is in use: messages have arrived, people are in the room.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from testbed.chromium import headless_shell  # noqa: E402
from testbed.redis_servers import RedisServer  # noqa: E402
from testbed.site_files import make_site_files  # noqa: E402
from testbed.sites import Site  # noqa: E402

IMAGES = ROOT / "docs/images"
SIZE = (1280, 800)  # pixels
SETTLE = 1.5  # seconds in which a page connects and draws


def press(browser: webdriver.Chrome, selector: str, times: int = 1) -> None:
    for _ in range(times):
        browser.find_element(By.CSS_SELECTOR, selector).click()
        time.sleep(0.4)


def first(browser: webdriver.Chrome, site: Site) -> None:
    press(browser, "[data-series]")
    time.sleep(8)


def room(browser: webdriver.Chrome, site: Site) -> None:
    for text in ("Good morning!", "The new release is out, has anybody tried it?", "Yes: no message was lost."):
        browser.find_element(By.CSS_SELECTOR, "main form textarea, main form input[type=text]").send_keys(text, "\n")
        time.sleep(0.5)


def inspector(browser: webdriver.Chrome, site: Site) -> None:
    press(browser, "main form button")
    time.sleep(2)


# Visitors who talk to the echo, and others who listen: of some the page of staff is to show something.
VISITORS = """
const url = (path) => `${location.origin.replace("http", "ws")}/ws/${path}`;
for (let number = 0; number < 60; number += 1) {
  const socket = new WebSocket(url("echo/"));
  socket.onopen = () => setInterval(() => socket.send("hello ".repeat(20)), 300 + 40 * Math.random() * number);
  new WebSocket(url(`${["orders", "news", "scores"][number % 3]}?subscribe-broadcast`));
}
"""


# Messages for those who listen, some a second.
PUBLISHER = """
import random, time
from redis.exceptions import RedisError
from wsloop.publisher import RedisPublisher
end = time.monotonic() + 60
while time.monotonic() < end:
    facility = random.choice(["orders", "orders", "news", "scores"])
    try:
        RedisPublisher(facility=facility, broadcast=True).publish_message({"number": random.randrange(1000)})
    except RedisError:  # the site has ended
        break
    time.sleep(random.random() / 5)
"""


def ops(browser: webdriver.Chrome, site: Site) -> None:
    browser.execute_script(VISITORS)
    threading.Thread(target=site.manage, args=("shell", "-v0", "-c", PUBLISHER), daemon=True).start()
    field = browser.find_element(By.CSS_SELECTOR, "[data-find=user] [name=name]")
    field.send_keys("admin")
    press(browser, "[data-find=user] button")
    time.sleep(50)  # its plots begin when it is opened


# Each page: its name, its path, and what is done there first.
PAGES = [
    ("first", "/", first),
    ("room", "/rooms/lobby/", room),
    ("inspector", "/inspector/", inspector),
    ("ops", "/ops/", ops),
]


def chromium(directory: Path) -> str:
    """Return the program to start."""
    named = map(shutil.which, ("chromium", "google-chrome"))
    return headless_shell(directory) or next(filter(None, named), None) or sys.exit("Install chromium and its driver")


def open_browser(directory: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium(directory)
    arguments = ["--headless", f"--user-data-dir={directory}", "--hide-scrollbars", "--force-prefers-reduced-motion"]
    for argument in [*arguments, *(["--no-sandbox"] if os.geteuid() == 0 else [])]:
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def take(browser: webdriver.Chrome, site: Site) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(f"{site.url}/accounts/login/")
    browser.find_element(By.NAME, "username").send_keys("admin")
    browser.find_element(By.NAME, "password").send_keys("admin", "\n")
    time.sleep(SETTLE)
    for name, path, act in PAGES:
        browser.get(site.url + path)
        time.sleep(SETTLE)
        act(browser, site)
        browser.execute_script("scrollTo(0, 0)")
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            time.sleep(0.3)
            file = IMAGES / f"{name}-{scheme}.png"
            browser.save_screenshot(str(file))
            print(file.relative_to(ROOT), f"{file.stat().st_size // 1024} KiB", flush=True)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, RedisServer() as redis:
        files, profile = Path(directory) / "files", Path(directory) / "profile"
        files.mkdir()
        profile.mkdir()
        site = Site(redis.url, make_site_files(files)).start()
        try:
            browser = open_browser(profile)
            try:
                take(browser, site)
            finally:
                browser.quit()
        finally:
            site.stop()


if __name__ == "__main__":
    main()

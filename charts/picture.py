"""`make picture`: docs/overview.png, the overview dashboard of a platform at work.

A platform of its own, a canary and Debian's Prometheus are started; for some minutes users and other servers send mail,
read it, and try what is refused. Then each query of the dashboard is asked, and what comes is drawn as Grafana would.
With PROMETHEUS=http://... the picture is of whatever that one watches.
"""

from __future__ import annotations

import argparse
import imaplib
import json
import math
import os
import random
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from services.dev.plan import Plan  # noqa: E402

BOARD = ROOT / "charts" / "posta" / "dashboards" / "overview.json"
PASSWORD, ALICE, BOB = "posta-demo", "alice@posta.test", "bob@posta.test"
EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1")
PAPER, PANEL, INK, FAINT = "#111217", "#181b1f", "#ccccdc", "#2c3235"
PORT_OF_PROMETHEUS = 9990  # above the base


# ---- a platform at work ----------------------------------------------------------------------------------------


@contextmanager
def platform(folder: Path, base: int) -> Iterator[dict[str, Any]]:
    """One that runs, with what `posta status` says of it."""
    free = {f"POSTA_SUBMISSION_{key}": "0" for key in ("RECIPIENTS_PER_HOUR", "RECIPIENTS_PER_DAY", "PAUSE_RECIPIENTS")}
    env = {**os.environ, **free, "POSTA_HOME": str(folder / "home"), "POSTA_PORT_BASE": str(base)}

    def posta(*words: str) -> str:
        command = (sys.executable, "-m", "services.dev", *words)
        return subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

    posta("up", "--detach")
    try:
        yield json.loads(posta("status", "--json"))
    finally:
        posta("down")
        posta("wipe", "--yes")


@contextmanager
def watched(folder: Path, base: int, state: dict[str, Any]) -> Iterator[str]:
    """The platform and a canary, scraped as the chart's monitors do; the address of the Prometheus."""
    doors = {name: f"localhost:{port}" for name, port in Plan(base).doors().items()}
    targets = {service.name: Plan(base).ports(service)["health"] for service in Plan(base).services}
    targets["canary"] = base + PORT_OF_PROMETHEUS - 1
    canary = {
        "DATABASE_URL": state["urls"]["database"],
        "NATS_URL": state["urls"]["nats"],
        "HEALTH_PORT": str(targets["canary"]),
        "PROBE_ADDRESS": "canary@posta.test",
        "PROBE_SUBMISSION": doors["submissions"],
        "PROBE_IMAP": doors["imaps"],
        "PROBE_CA": state["urls"]["ca"],
        "PROBE_EVERY_S": "5",
    }
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "posta"}}]}
        for name, port in targets.items()
    ]
    config = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    at = f"127.0.0.1:{base + PORT_OF_PROMETHEUS}"
    server = (
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={at}",
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
    started = [
        subprocess.Popen(server, stderr=subprocess.DEVNULL),
        subprocess.Popen(
            (sys.executable, "-m", "services.admin", "canary"),
            cwd=ROOT,
            env={**clean, **{f"POSTA_{name}": value for name, value in canary.items()}},
            stdout=subprocess.DEVNULL,
        ),
    ]
    try:
        yield f"http://{at}"
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def letter(sender: str, to: str, text: str) -> bytes:
    head = f"From: {sender}\r\nTo: {to}\r\nSubject: about {uuid.uuid4().hex[:6]}\r\nMessage-ID: <{uuid.uuid4()}@x.test>"
    return f"{head}\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\n{text}\r\n".encode()


class Day:
    """A day in some minutes: how much goes on, and the threads of those who do it."""

    def __init__(self, state: dict[str, Any], base: int, lasts_s: float) -> None:
        self._ports, self._began, self._lasts_s = Plan(base).doors(), time.monotonic(), lasts_s
        self._tls = ssl.create_default_context(cafile=state["urls"]["ca"])

    def live(self) -> None:
        """Return when the day is over."""
        people: list[Callable[[int], None]] = [self._sends, self._mails, self._mails, *[self._reads] * 25]
        threads = [threading.Thread(target=each, args=(n,)) for n, each in enumerate(people)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _share(self) -> float:
        return (time.monotonic() - self._began) / self._lasts_s

    def _pause(self, most_s: float) -> None:
        busy = 0.15 + math.sin(math.pi * min(1.0, self._share())) ** 2 * (1 + 0.3 * math.sin(40 * self._share()))
        time.sleep(most_s * random.uniform(0.5, 1.5) / busy)

    def _sends(self, _n: int) -> None:
        with smtplib.SMTP_SSL("localhost", self._ports["submissions"], timeout=60, context=self._tls) as client:
            client.login(ALICE, PASSWORD)
            while self._share() < 1:
                client.sendmail(ALICE, BOB, letter(ALICE, BOB, "Hello.\r\n" * random.randrange(10, 400)))
                self._pause(0.15)

    def _mails(self, n: int) -> None:
        sender = f"server{n}@elsewhere.test"
        with smtplib.SMTP("localhost", self._ports["smtp"], timeout=60) as client:
            while self._share() < 1:
                text = EICAR if random.random() < 0.06 else "Hello.\r\n" * random.randrange(10, 2000)
                with suppress(smtplib.SMTPResponseException):
                    client.sendmail(sender, ALICE, letter(sender, ALICE, text))
                self._pause(0.12)

    def _reads(self, n: int) -> None:
        time.sleep(self._lasts_s * (0.05 + 0.4 * n / 28))
        with imaplib.IMAP4_SSL("localhost", self._ports["imaps"], ssl_context=self._tls) as client:
            client.login((ALICE, BOB)[n % 2], PASSWORD)
            client.select("INBOX")
            until = random.uniform(0.6, 0.97)
            while self._share() < until:
                client.noop()
                time.sleep(2)


# ---- the picture -----------------------------------------------------------------------------------------------


def asked(prometheus: str, path: str, **words: object) -> list[Any]:
    """What Prometheus answers."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(words)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
        return found


def draw(board: dict[str, Any], prometheus: str, namespace: str, lasts_s: float, out: Path) -> None:
    """The board's last `lasts_s` seconds as a picture."""
    end, rows = time.time(), max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    figure = pyplot.figure(figsize=(12.8, 0.33 * rows + 0.6), facecolor=PAPER)
    grid = figure.add_gridspec(4 * rows, 24, left=0.045, right=0.985, top=0.955, bottom=0.02, wspace=3.4, hspace=0)
    figure.text(0.03, 0.966, board["title"], color=INK, fontsize=13, weight="bold")
    for panel in board["panels"]:
        at, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
        # Of a row's four quarters some are the title's above and the axis's below.
        high, wide = slice(4 * at["y"] + 3, 4 * (at["y"] + at["h"]) - 2), slice(at["x"], at["x"] + at["w"])
        axes = figure.add_subplot(grid[high, wide], facecolor=PANEL)
        axes.set_title(panel["title"], color=INK, fontsize=9, loc="left")
        axes.tick_params(colors=INK, labelsize=7, length=0, pad=2)
        for spine in axes.spines.values():
            spine.set_color(FAINT)
        lines = []
        for target in panel["targets"]:
            query = target["expr"].replace("$namespace", namespace).replace("$__rate_interval", "20s")
            for series in asked(
                prometheus, "query_range", query=query, start=end - lasts_s, end=end, step=lasts_s / 300
            ):
                lines.append((_legend(target["legendFormat"], series["metric"]), _points(series["values"], end)))
        (_stat if panel["type"] == "stat" else _graph)(axes, lines, unit)
    figure.savefig(out, dpi=80, facecolor=PAPER)
    with Image.open(out) as picture:
        few = picture.convert("RGB").quantize(96)
    few.save(out, optimize=True)


def _points(values: list[list[Any]], end: float) -> list[tuple[float, float]]:
    return [((at - end) / 60, float(value)) for at, value in values if value != "NaN"]


def _legend(form: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace(f"{{{{{name}}}}}", value)
    return form


def _graph(axes: Any, lines: list[tuple[str, list[tuple[float, float]]]], unit: str) -> None:
    for (legend, points), colour in zip(lines, COLOURS * 3, strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, label=legend) if points else None
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _words(value, unit)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda minutes, _: f"{minutes:g} min" if minutes else "now"))
    if lines:
        axes.legend(fontsize=6.5, facecolor=PANEL, edgecolor=FAINT, labelcolor=INK, loc="upper left")


def _stat(axes: Any, lines: list[tuple[str, list[tuple[float, float]]]], unit: str) -> None:
    axes.set(xticks=[], yticks=[])
    points = lines[0][1] if lines else []
    if points:
        axes.plot(*zip(*points, strict=True), color=COLOURS[0], linewidth=0.8, alpha=0.5)
        axes.set_ylim(0, max(1e-9, 1.6 * max(value for _, value in points)))
    text = _words(points[len(points) * 2 // 3][1], unit) if points else "no data"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=COLOURS[0], fontsize=20)


def _words(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
    return f"{value:.0f}{'/s' if unit == 'ops' else ''}" if value >= 10 or value == int(value) else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="charts/picture.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "overview.png")
    parser.add_argument(
        "--prometheus", default="", help="draw what this one has watched, instead of a platform of ours"
    )
    parser.add_argument("--namespace", default="posta")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--base", type=int, default=43_000)
    given = parser.parse_args()
    board = json.loads(BOARD.read_text())
    if given.prometheus:
        draw(board, given.prometheus, given.namespace, given.seconds, given.out)
        return
    with tempfile.TemporaryDirectory(prefix="posta-picture-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with platform(folder, given.base) as state, watched(folder, given.base, state) as prometheus:
            time.sleep(6)
            Day(state, given.base, given.seconds).live()
            draw(board, prometheus, given.namespace, given.seconds, given.out)


if __name__ == "__main__":
    main()

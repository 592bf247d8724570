"""On a service's PYTHONPATH: its wall clock is off by the seconds in the file that TEST_CLOCKS has under its name.

Read at every look, so that the clock of a running service can be set. What measures durations is left alone, as an
operating system does.
"""

import datetime
import os
import sys
import time
from typing import Any

_NAME = next((word.removeprefix("services.") for word in sys.orig_argv if word.startswith("services.")), "none")
_FILE = os.path.join(os.environ.get("TEST_CLOCKS", "/nonexistent"), _NAME)
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


def _off_s() -> int:
    try:
        with open(_FILE) as file:
            return int(file.read() or 0)
    except OSError:
        return 0


class _Meta(type):
    """Of what C code makes, Python code must still say that it is a datetime."""

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, _datetime)

    def __subclasscheck__(cls, one: type) -> bool:
        return issubclass(one, _datetime)


class _Datetime(_datetime, metaclass=_Meta):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _datetime.now(tz) + datetime.timedelta(seconds=_off_s())


if _NAME.isalpha():  # the services alone, not what starts them
    time.time = lambda: _time() + _off_s()
    time.time_ns = lambda: _time_ns() + _off_s() * 1_000_000_000
    datetime.datetime = _Datetime  # type: ignore[misc]

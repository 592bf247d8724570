"""A program of ours beside a running platform, at the same terminal."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from services.dev.process import dies_with_parent


async def beside(
    module: str, *words: str, env: Mapping[str, str], cwd: Path, stop: signal.Signals, stop_s: float
) -> int:
    """Run `python -m module words` to its end: its exit code.

    Cancelled, it sends `stop` and returns when the program has ended, by force after `stop_s`; the kernel sends `stop`
    where this process dies first.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *words),
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        # Ctrl-C at the terminal is for the supervisor alone.
        start_new_session=True,
        preexec_fn=dies_with_parent(stop),
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.send_signal(stop)
        with suppress(TimeoutError):
            async with asyncio.timeout(stop_s):
                await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise

"""`posta up`: the whole platform on one machine, from PyPI wheels alone.

Invariants
- One supervisor per home, held by a lock that the kernel frees with the process; everything it starts dies with it,
  however it dies.
- `plan.SERVICES` is the one list of services and ports: environment, port check, status and start order derive from it.
- Start order is Postgres, NATS, migrations, services; stop order is the reverse, doors before the workers behind them.
- Nothing outside the home is touched, with one exception: as root, Postgres's data live where its user may go, recorded
  in the home. No existing folder's permissions are ever loosened.
- What a person can mend is a `Trouble`: one clear line on stderr and exit code 1, never a traceback.
"""

"""What two services need and that has a name of its own.

Invariants
- Nothing here imports a service; settings, clocks and connections are passed in.
- `bus` alone imports nats; `store` alone writes uids, change numbers and counters; `mime` and `address` do no I/O.
"""

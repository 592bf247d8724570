"""SMTP as a server speaks it, once for both doors: submission (587, 465) and MX (25). RFC 5321 and its extensions.

Invariants
- A message ends at CRLF . CRLF and nowhere else, and no message with a bare CR or LF beside a dot is ever taken.
- Every reply comes from the table in `replies`; a door adds words to one, it does not make up codes.
- EHLO is derived from the one tuple in `extensions`, dispatch from the one in `commands`.
- `wire`, `parameters` and `replies` are pure; `connection` alone touches transports and decides nothing.
- A hook is never cancelled by a lost peer or a drain: what was begun is finished, until the grace ends.
- Nothing is written while the peer's pipelined commands wait in the buffer; nothing is awaited with replies unsent.
"""

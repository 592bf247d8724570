"""Ports 587 and 465: authenticated users hand mail in (RFC 6409).

Invariants:

- Nothing is accepted without a login, and no login without TLS unless a setting says so.
- Envelope sender and every From address are the login's own.
- An account sends to so many recipients an hour and a day; one that sends spam or viruses is paused, and somebody told.
- What the user wrote is kept as it came; Received, and Date and Message-ID where they were missing, stand in front.
"""

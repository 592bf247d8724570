"""The delivery store: from a ticket to rows in mailboxes.

Invariants:

- Each account's messages of a batch are placed in one transaction, which also marks them delivered: a ticket that comes
  twice, to this process or another, places nothing twice.
- A recipient's spool row goes away only after its delivery is committed, or in the commit that keeps the DSN about it.
- Commit, then tell the readers, then acknowledge the ticket.
- Nothing that arrives here is dropped: what cannot be delivered is bounced, what cannot be done now is tried again.
"""

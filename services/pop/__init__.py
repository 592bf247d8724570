"""POP3 (RFC 1939): the reader that fetches and deletes.

Invariants:

- A session sees the INBOX as it was at login; what others do to it meanwhile it meets as "no such message".
- DELE only marks. Marked messages are expunged in one transaction at QUIT, and at no other end of a session.
- The maildrop lock lives in a Postgres session of this process: when the process dies, so does the lock.
"""

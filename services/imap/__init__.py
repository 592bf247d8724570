"""IMAP: how a mail client reads and changes what the store holds.

Three seams, and what each may know
- `wire/` turns octets into values and back. No socket, no store, no clock.
- `session`, `view` and `features/` turn requests into responses. Store and bus, no socket.
- `connection` and `server` own sockets, TLS, timeouts and backpressure. They decide nothing.

Invariants
- A handler is an async generator of responses. The next one is asked for only when the client has room for it.
- Nothing is yielded inside a transaction.
- Sequence numbers change only by what a session has told its client (`view`).
- Unasked news are told when a command completes and during IDLE, at no other time.
- An extension is one `Feature` in one tuple; CAPABILITY, dispatch and ENABLE are derived from it.
- A connection that waits for its client holds no task, except in IDLE.
"""

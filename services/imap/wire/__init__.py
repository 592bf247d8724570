"""The IMAP wire: bytes to values and values to bytes, nothing else.

Invariants
- No socket, no store, no clock: the same bytes give the same values in every session, whatever packets they came in.
- Framing (framer) and grammar (cursor) are two things. The framer knows lines and literals; a request is parsed once,
  when it is complete.
- No bytes raise anything but `BadSyntax`, and no bytes make memory grow past the limits.
- Time is linear in the octets received, however many literals they are cut into.
"""

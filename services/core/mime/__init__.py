"""The structure of a message: octets in, values out.

Invariants
- Pure: no I/O, no clock, no asyncio. The same octets give the same values in every process.
- No octets make anything here raise. What is malformed is read as a mail client would want it read, what passes a limit
  is left opaque, and the result names the limit (`structure.Message.limits_hit`).
- Offsets point into the octets as received; nothing is rewritten, so every IMAP section is a slice of the blob.
- Work is linear in the size of the message: no pattern can backtrack over what it has read, and scans that nesting
  repeats are paid from one budget per message.
- Wire text (`envelope`) is finished here, once, at delivery. What readers need later is in `facts.Facts`.
- Text meant for a database column holds neither NUL nor a lone surrogate.
"""

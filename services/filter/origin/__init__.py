"""Where a message comes from, as far as that can be proved: SPF, DKIM, DMARC, ARC.

Invariants:

- Every question to the DNS goes through `lookup`, and an answer that nobody gives is "temperror", never "fail".
- Whatever a foreign zone or header says has a limit: lookups, signatures, chains, key sizes, record sizes.
- Grammars, canonical forms and alignment are pure; the clock is an argument.
- Results are told in the words of RFC 8601. What becomes of the message is decided in `verdict`.
"""

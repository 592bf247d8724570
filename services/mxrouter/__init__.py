"""Port 25: other servers hand mail in for our domains.

Invariants:

- Never a relay: a recipient of another domain is refused, whoever asks and from wherever.
- Verdict before 250, always.
- `Authentication-Results` that claim to be ours are removed before anything reads the message.
"""

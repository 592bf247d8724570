"""Port 25: other servers hand mail in for our domains.

Invariants:

- Never a relay: a recipient of another domain is refused, whoever asks and from wherever.
- Verdict before 250, always.
- `Authentication-Results` that claim to be ours are removed before anything reads the message.
- Whether mail is taken is decided in `policy`, over facts; the hooks of `listener` only find them out.
- The client is who the proxy says it is, or the peer itself; of `limits.exempt` ones nothing is asked or counted.
"""

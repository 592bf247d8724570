"""Port 25: other servers hand mail in for our domains, and ours goes out to theirs.

Invariants of the way in:

- Never a relay: a recipient of another domain is refused, whoever asks and from wherever.
- Verdict before 250, always.
- `Authentication-Results` that claim to be ours are removed before anything reads the message.
- Whether mail is taken is decided in `policy`, over facts; the hooks of `listener` only find them out.
- The client is who the proxy says it is, or the peer itself; of `limits.exempt` ones nothing is asked or counted.

Invariants of the relay:

- The queue is rows; tickets and hints only wake. With NATS away mail still leaves, a little later.
- A recipient is leased before it is attempted, and leaves the queue only when it is sent, or in the commit that keeps
  the notice about it. Nothing is ever dropped but what an operator drops.
- A destination that cannot be had costs the others nothing: neither slots, nor turns, nor reads of its rows.

Invariants of the way out, from a `Letter` to each recipient's `Outcome`:

- `heard`, `dialogue`, `envelope` and `transaction` know SMTP and no socket; `link` has the socket and knows no mail.
- Nothing that a server, a zone or a policy says raises out of `Client.carry`, or makes it wait without end.
- What must be proved (DANE, MTA-STS, REQUIRETLS, whose password it is) is proved before MAIL, or the mail waits.
- A message is given to no second host while the first one may have taken it.
"""

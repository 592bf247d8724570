"""Port 25, and the way out: other servers hand mail in for our domains, and we hand ours to them.

Invariants of the listener:

- Never a relay: a recipient of another domain is refused, whoever asks and from wherever.
- Verdict before 250, always.
- `Authentication-Results` that claim to be ours are removed before anything reads the message.

Invariants of the relay:

- The queue is rows; tickets and hints only wake. With NATS away mail still leaves, a little later.
- A recipient is leased before it is attempted, and leaves the queue only when it is sent, or in the commit that keeps
  the notice about it. Nothing is ever dropped but what an operator drops.
- A destination that cannot be had costs the others nothing: neither slots, nor turns, nor reads of its rows.
"""

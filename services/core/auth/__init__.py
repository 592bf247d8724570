"""Who is at the door: SASL exchanges, password checks, and the slowing of those who guess.

Invariants, in force for every door:

- Passwords are kept as argon2id and SCRAM keys only, and never logged, nor is a login name that nobody has.
- A name that nobody has costs the same statements and the same hash as one that has a password.
- Every credential of an account has the account's SCRAM salt, so a SCRAM client may hold any of its passwords.
- A login verified before, from the same network, is answered from memory: no hash, no SQL, also with Postgres down.
- Failures are counted in Postgres, so every process slows the same account and network; a slow answer is slow before
  the password is looked at, or guessers would not wait for it.
- An attacker elsewhere does not slow the owner: networks that an account has logged in from before are counted apart.
- `scram.py` and `sasl.py` are pure.
"""

"""Verdicts: every message is examined before its door answers.

Invariants:

- A verdict is a pure function of findings and policy (`verdict`); engines only find.
- A message is parsed once (`examined`); engines share what was decoded and never parse again.
- A required engine that crashes or does not answer makes the verdict TEMPFAIL. Nothing passes unexamined, unless the
  operator marked the engine optional, and then the message says so.
- Every request is answered before the asker's deadline, by words that say what was missing.
- The loop is never held for long: what is large, or may unpack to something large, is looked at in a thread.

A new engine is one file in `engines/` and one entry in its tuple.
"""

"""HTTP: the admin API, and what tells mail clients where the doors are. JMAP and DAV will be rooms beside them.

Invariants:

- Every error is an RFC 9457 problem; what an operator sent wrong says which field.
- Autoconfig and autodiscover answer alike for names that exist and names that do not.
- A route of the admin API is the platform's alone, unless it asks for the bearer's reach (`reach`) and keeps to it.
- A change is announced to every cache after its commit.
"""

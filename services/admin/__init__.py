"""What a cluster runs beside the services: `python -m services.admin apply|export|canary|journey`.

Invariants
- What is declared is reconciled, not replayed: a second run changes nothing, and a run that was cut off is finished by
  the next.
- What a declaration does not name is left as it is; `prune` takes it away, but never mail: an account that holds some
  is suspended.
- The canary and the journey go through the doors as a mail client does. They touch the store only to have a mailbox.
"""

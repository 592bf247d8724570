"""The mail store: one Postgres, one change number per account.

Invariants, in force for every function of this room:

- Every transaction that writes into an account locks its `account_seq` row before it reads what it will change and
  holds the lock to commit, so commit order is number order and a reader at n never later sees a number <= n appear.
- Numbers (`cn`, `mid`, `object_id`, `fid`, `uid`) and counters are written here and nowhere else. Gaps are allowed,
  reuse is not.
- `folders` and `account_seq` counters (total, unseen, octets, used_octets) change in the same transaction as the rows
  they count.
- What a client may have seen is committed synchronously. Only staged blobs are not: WAL order makes them durable with
  the later commit that names them.
- Functions take a connection first, never begin or commit, and return `NamedTuple` rows.
"""

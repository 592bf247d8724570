"""Tombstones come to an end, and the account remembers up to where."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_retention"
down_revision = "2026_11_24"


def upgrade() -> None:
    op.add_column("account_seq", sa.Column("forgotten_cn", sa.BigInteger(), server_default="0", nullable=False))
    op.create_index("tombstones_at_idx", "tombstones", ["at"], unique=False, postgresql_using="brin")

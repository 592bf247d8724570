"""Which domains have had their report on how TLS with them went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_tls_reports"
down_revision = "2026_11_25_leases"


def upgrade() -> None:
    op.create_table(
        "tls_reports",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("spool_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("domain", "day", name=op.f("tls_reports_pkey")),
        info={"distribution": "domain"},
    )

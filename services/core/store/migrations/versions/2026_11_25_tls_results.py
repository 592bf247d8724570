"""How TLS with other domains went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_tls_results"
down_revision = "2026_11_25_quarantine"


def upgrade() -> None:
    op.create_table(
        "tls_results",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("sessions", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("domain", "day", "policy", "host", "result", name=op.f("tls_results_pkey")),
        info={"distribution": "domain"},
    )

"""Signing: DKIM keys, secrets of the house's own, and which recipients are forwards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_signing"
down_revision = "2026_11_25_search_text"


def upgrade() -> None:
    op.create_table(
        "dkim_keys",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("private_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("domain", "selector", name=op.f("dkim_keys_pkey")),
        info={"distribution": "reference"},
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("secrets_pkey")),
        info={"distribution": "reference"},
    )
    op.add_column("spool_recipients", sa.Column("forwarded_by", sa.Text(), nullable=True))

"""The MX door: greylisting, and messages that must not leave without TLS."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_door"
down_revision = "2026_11_25_tls_results"


def upgrade() -> None:
    op.add_column("spool", sa.Column("requiretls", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "greylist",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("passed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("greylist_pkey")),
        prefixes=["UNLOGGED"],
        info={"distribution": "key"},
    )

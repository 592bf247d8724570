"""The MX door: greylisting, and messages that must not leave without TLS."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_door"
down_revision = "2026_11_25_tls_results"


def upgrade() -> None:
    # Another revision of the same day may have added it.
    op.execute("ALTER TABLE spool ADD COLUMN IF NOT EXISTS requiretls boolean NOT NULL DEFAULT false")
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

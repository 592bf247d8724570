"""The way out: which recipients wait for another domain, since when, and by which relay."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_the_queue"
down_revision = "2026_11_25_door"

_REMOTE = "account_id IS NULL AND NOT held"


def upgrade() -> None:
    # Generated, so that the version before this one, which knows nothing of it, writes it as well.
    op.add_column(
        "spool_recipients",
        sa.Column(
            "domain",
            sa.Text(),
            sa.Computed("CASE WHEN account_id IS NULL THEN split_part(address, '@', -1) END", persisted=True),
            nullable=True,
        ),
    )
    op.add_column("spool_recipients", sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("spool_recipients", sa.Column("leased_by", sa.Text(), nullable=True))
    op.add_column("spool_recipients", sa.Column("doomed", sa.Text(), nullable=True))
    op.add_column(
        "spool_recipients",
        sa.Column("notice_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.drop_index("spool_recipients_due_at_idx", table_name="spool_recipients")
    op.create_index(
        "spool_recipients_due_at_idx",
        "spool_recipients",
        ["due_at"],
        postgresql_where=sa.text("account_id IS NOT NULL"),
    )
    op.create_index(
        "spool_recipients_fresh_idx",
        "spool_recipients",
        ["domain", "due_at"],
        postgresql_where=sa.text(f"{_REMOTE} AND attempts = 0"),
    )
    op.create_index(
        "spool_recipients_retry_idx",
        "spool_recipients",
        ["domain", "due_at"],
        postgresql_where=sa.text(f"{_REMOTE} AND attempts > 0"),
    )
    op.create_index(
        "spool_recipients_due_retry_idx",
        "spool_recipients",
        ["due_at", "domain"],
        postgresql_where=sa.text(f"{_REMOTE} AND attempts > 0"),
    )
    op.create_table(
        "relay_routes",
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("implicit_tls", sa.Boolean(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("sender", "recipient", name=op.f("relay_routes_pkey")),
        info={"distribution": "reference"},
    )

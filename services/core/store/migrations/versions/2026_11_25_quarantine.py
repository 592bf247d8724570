"""Quarantine, and what accounts may send."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_25_quarantine"
down_revision = "2026_11_25_signing"


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _flag(name: str, default: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean(), server_default=sa.text(default), nullable=False)


def upgrade() -> None:
    op.add_column("domains", sa.Column("on_held", sa.Text(), server_default="refuse", nullable=False))
    op.add_column("domains", _flag("notify_sender", "false"))
    op.add_column("domains", _flag("digest", "true"))
    op.add_column("accounts", sa.Column("sending", sa.Text(), server_default="active", nullable=False))
    op.add_column("accounts", sa.Column("send_hour", sa.Integer(), nullable=True))
    op.add_column("accounts", sa.Column("send_day", sa.Integer(), nullable=True))
    op.create_table(
        "sent_counts",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        *(_now("hour_at"), _count("hour"), _count("tried")),
        *(_now("day_at"), _count("day"), _flag("fits", "true"), _now("bad_at"), _count("bad")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("sent_counts_pkey")),
        info={"distribution": "account_id"},
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "quarantine",
        sa.Column("spool_id", sa.Text(collation="C"), nullable=False),
        sa.Column("blob_id", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("sender_account_id", sa.BigInteger(), nullable=True),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("ret", sa.Text(), nullable=True),
        sa.Column("envid", sa.Text(), nullable=True),
        sa.Column("smtputf8", sa.Boolean(), nullable=False),
        sa.Column("requiretls", sa.Boolean(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("notice_due", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("findings", postgresql.JSONB(), nullable=False),
        sa.Column("from_text", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        _now("received_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("spool_id", name=op.f("quarantine_pkey")),
        info={"distribution": "spool_id"},
    )
    op.create_index("quarantine_expires_at_idx", "quarantine", ["expires_at"])
    op.create_index("quarantine_notice_idx", "quarantine", ["spool_id"], postgresql_where=sa.text("notice_due"))
    op.create_index(op.f("quarantine_blob_id_idx"), "quarantine", ["blob_id"])
    op.create_table(
        "quarantine_recipients",
        sa.Column("spool_id", sa.Text(collation="C"), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("notify", sa.Text(), nullable=True),
        sa.Column("orcpt", sa.Text(), nullable=True),
        sa.Column("forwarded_by", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="held", nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("spool_id", "n", name=op.f("quarantine_recipients_pkey")),
        info={"distribution": "spool_id"},
    )
    op.create_index(
        "quarantine_recipients_account_idx",
        "quarantine_recipients",
        ["account_id"],
        postgresql_where=sa.text("account_id IS NOT NULL"),
    )
    op.create_index(
        "quarantine_recipients_owed_idx", "quarantine_recipients", ["spool_id"], postgresql_where=sa.text("owed")
    )

"""The house: directory, mailbox, blobs and spool."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_24"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "account_seq",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_cn", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_objid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cn_email", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cn_mailbox", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cn_thread", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cn_event", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cn_contact", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cn_other", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("used_octets", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("used_items", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("account_seq_pkey")),
        info={"distribution": "account_id"},
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "accounts",
        sa.Column("account_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("quota_octets", sa.BigInteger(), nullable=True),
        sa.Column("mailbox_guid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("repl_guid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("change_epoch", sa.Integer(), server_default="1", nullable=False),
        sa.Column("legacy_dn", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("accounts_pkey")),
        sa.UniqueConstraint("legacy_dn", name=op.f("accounts_legacy_dn_key")),
        info={"distribution": "reference"},
    )
    op.create_table(
        "addresses",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("address", "target", name=op.f("addresses_pkey")),
        info={"distribution": "reference"},
    )
    op.create_index(op.f("addresses_account_id_idx"), "addresses", ["account_id"], unique=False)
    op.create_index(op.f("addresses_domain_idx"), "addresses", ["domain"], unique=False)
    op.create_index(op.f("addresses_target_idx"), "addresses", ["target"], unique=False)
    op.create_table(
        "blobs",
        sa.Column("blob_id", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("staged_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("blob_id", name=op.f("blobs_pkey")),
        info={"distribution": "blob_id"},
    )
    op.create_table(
        "credentials",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("credential_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("argon2", sa.Text(), nullable=False),
        sa.Column("scram_salt", sa.LargeBinary(), nullable=False),
        sa.Column("scram_iterations", sa.Integer(), nullable=False),
        sa.Column("scram_stored_key", sa.LargeBinary(), nullable=False),
        sa.Column("scram_server_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "credential_id", name=op.f("credentials_pkey")),
        info={"distribution": "reference"},
    )
    op.create_table(
        "deliveries",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("spool_id", sa.Text(collation="C"), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "spool_id", "n", name=op.f("deliveries_pkey")),
        info={"distribution": "account_id"},
    )
    op.create_index("deliveries_at_idx", "deliveries", ["at"], unique=False, postgresql_using="brin")
    op.create_table(
        "domains",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("domain", name=op.f("domains_pkey")),
        info={"distribution": "reference"},
    )
    op.create_table(
        "folders",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("fid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parent_fid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="mail", nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("is_ipm", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("selectable", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("subscribed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("uidvalidity", sa.BigInteger(), nullable=False),
        sa.Column("uidnext", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("recent_uid", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_cn", sa.BigInteger(), nullable=False),
        sa.Column("cn", sa.BigInteger(), nullable=False),
        sa.Column("content_cn", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unseen", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("octets", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("deleted_total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("modified_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("content_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "fid", name=op.f("folders_pkey")),
        sa.UniqueConstraint("account_id", "parent_fid", "name", name=op.f("folders_account_id_parent_fid_name_key")),
        info={"distribution": "account_id"},
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "folders_role_key", "folders", ["account_id", "role"], unique=True, postgresql_where=sa.text("role IS NOT NULL")
    )
    op.create_table(
        "items",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("fid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mid", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=False),
        sa.Column("created_cn", sa.BigInteger(), nullable=False),
        sa.Column("cn", sa.BigInteger(), nullable=False),
        sa.Column("read_cn", sa.BigInteger(), nullable=True),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("internal_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("modified_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("flags", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("is_read", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("keywords", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("dav_name", sa.Text(), nullable=True),
        sa.Column("ical_uid", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", "fid", "uid", name=op.f("items_pkey")),
        sa.UniqueConstraint("account_id", "cn", name=op.f("items_account_id_cn_key")),
        sa.UniqueConstraint("account_id", "mid", name=op.f("items_account_id_mid_key")),
        info={"distribution": "account_id"},
    )
    op.create_index("items_modseq_idx", "items", ["account_id", "fid", "modseq"], unique=False)
    op.create_index("items_object_idx", "items", ["account_id", "object_id"], unique=False)
    op.create_table(
        "login_failures",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("login_failures_pkey")),
        info={"distribution": "key"},
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "objects",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("object_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_cn", sa.BigInteger(), nullable=False),
        sa.Column("thread_id", sa.BigInteger(), nullable=False),
        sa.Column("blob_id", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("header_length", sa.Integer(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("bodystructure", sa.LargeBinary(), nullable=False),
        sa.Column("parts", sa.LargeBinary(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("base_subject", sa.Text(), nullable=False),
        sa.Column("from_text", sa.Text(), nullable=False),
        sa.Column("to_text", sa.Text(), nullable=False),
        sa.Column("cc_text", sa.Text(), nullable=False),
        sa.Column("bcc_text", sa.Text(), nullable=False),
        sa.Column("preview", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("refs", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("has_attachment", sa.Boolean(), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "object_id", name=op.f("objects_pkey")),
        info={"distribution": "account_id"},
    )
    op.create_index(op.f("objects_blob_id_idx"), "objects", ["blob_id"], unique=False)
    op.create_index(
        "objects_message_id_idx",
        "objects",
        ["account_id", "message_id"],
        unique=False,
        postgresql_where=sa.text("message_id IS NOT NULL"),
    )
    op.create_table(
        "spool",
        sa.Column("spool_id", sa.Text(collation="C"), nullable=False),
        sa.Column("blob_id", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("sender_account_id", sa.BigInteger(), nullable=True),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), server_default="", nullable=False),
        sa.Column("junk", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("ret", sa.Text(), nullable=True),
        sa.Column("envid", sa.Text(), nullable=True),
        sa.Column("smtputf8", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("traceparent", sa.Text(), server_default="", nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("spool_id", name=op.f("spool_pkey")),
        info={"distribution": "spool_id"},
    )
    op.create_index(op.f("spool_blob_id_idx"), "spool", ["blob_id"], unique=False)
    op.create_table(
        "spool_recipients",
        sa.Column("spool_id", sa.Text(collation="C"), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("notify", sa.Text(), nullable=True),
        sa.Column("orcpt", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_reply", sa.Text(), nullable=True),
        sa.Column("last_host", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("spool_id", "n", name=op.f("spool_recipients_pkey")),
        info={"distribution": "spool_id"},
    )
    op.create_index("spool_recipients_due_at_idx", "spool_recipients", ["due_at"], unique=False)
    op.create_table(
        "tombstones",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cn", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("fid", sa.BigInteger(), nullable=False),
        sa.Column("mid", sa.BigInteger(), nullable=True),
        sa.Column("uid", sa.BigInteger(), nullable=True),
        sa.Column("object_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("dav_name", sa.Text(), nullable=True),
        sa.Column("created_cn", sa.BigInteger(), nullable=False),
        sa.Column("moved_to_mid", sa.BigInteger(), nullable=True),
        sa.Column("last_ref", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "cn", name=op.f("tombstones_pkey")),
        info={"distribution": "account_id"},
    )
    op.create_index("tombstones_fid_idx", "tombstones", ["account_id", "fid", "cn"], unique=False)
    # Slices of a message are read without the rest of it, which compression would forbid.
    op.execute("ALTER TABLE blobs ALTER COLUMN content SET STORAGE EXTERNAL")
    # Queues turn over whole every few seconds: clean them by count of dead rows, not by share of the table.
    for table in ("spool", "spool_recipients"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, "
            "autovacuum_vacuum_cost_delay = 0)"
        )

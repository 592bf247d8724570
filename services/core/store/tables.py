"""The tables, as metadata: Alembic compares against it, nothing inherits from it.

`info["distribution"]` names the column a table is sharded by once one Postgres is too small; "reference" marks the
directory tables, which every node holds whole.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _moment(name: str) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _number(name: str, default: int | None = 0, **kw: Any) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, server_default=None if default is None else str(default), **kw)


def _account() -> Column[Any]:
    return Column("account_id", BigInteger, primary_key=True, autoincrement=False)


_reference = {"distribution": "reference"}
_by_account = {"distribution": "account_id"}

# ---- the directory ---------------------------------------------------------------------------------------------

domains = Table(
    "domains",
    metadata,
    Column("domain", Text, primary_key=True),  # lower-case A-labels
    # What becomes of held mail: what its sender is told (see quarantine.Policy), whether its recipients are.
    Column("on_held", Text, nullable=False, server_default="refuse"),  # refuse | accept
    Column("notify_sender", Boolean, nullable=False, server_default=text("false")),
    Column("digest", Boolean, nullable=False, server_default=text("true")),
    _moment("created_at"),
    info=_reference,
)

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", BigInteger, Identity(always=True), primary_key=True),
    Column("address", Text, nullable=False),  # the primary address, canonical; unique through `addresses`
    Column("display_name", Text, nullable=False, server_default=""),
    Column("status", Text, nullable=False, server_default="active"),  # active | suspended
    Column("quota_octets", BigInteger),  # NULL: no limit
    Column("sending", Text, nullable=False, server_default="active"),  # active | paused: it may read, not send
    Column("send_hour", Integer),  # recipients an hour; NULL: the setting, 0: no limit
    Column("send_day", Integer),
    Column("mailbox_guid", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("repl_guid", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("change_epoch", Integer, nullable=False, server_default="1"),
    Column("legacy_dn", Text, nullable=False, unique=True),  # immutable, also through address changes
    _moment("created_at"),
    info=_reference,
)

addresses = Table(
    "addresses",
    metadata,
    Column("address", Text, primary_key=True),  # canonical; "@domain" is that domain's catch-all
    Column("target", Text, primary_key=True, index=True),  # an account's primary address, or any address to forward to
    Column("domain", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),  # account | alias
    Column("account_id", BigInteger, index=True),  # set for kind account: the one owner
    info=_reference,
)

credentials = Table(
    "credentials",
    metadata,
    _account(),
    Column("credential_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),  # password | app
    Column("label", Text, nullable=False, server_default=""),
    Column("scopes", ARRAY(Text), nullable=False, server_default="{}"),  # empty: every protocol
    Column("argon2", Text, nullable=False),
    Column("scram_salt", LargeBinary, nullable=False),
    Column("scram_iterations", Integer, nullable=False),
    Column("scram_stored_key", LargeBinary, nullable=False),
    Column("scram_server_key", LargeBinary, nullable=False),
    _moment("created_at"),
    info=_reference,
)

# Who may use the admin API for these domains alone; the bearer of the platform's own token is not in here.
admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret_hash", LargeBinary, nullable=False),  # SHA-256: the secret is random, nobody can guess it
    Column("domains", ARRAY(Text), nullable=False),
    _moment("created_at"),
    Column("used_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),  # NULL: good until it is revoked
    info=_reference,
)

dkim_keys = Table(
    "dkim_keys",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("selector", Text, primary_key=True),
    Column("algorithm", Text, nullable=False),  # rsa | ed25519
    Column("public_key", Text, nullable=False),  # the p= tag of its DNS record
    Column("private_key", Text, nullable=False),  # PKCS #8 as PEM, encrypted where dkim.key_secret is set
    Column("state", Text, nullable=False),  # published | active | retired
    _moment("created_at"),
    _moment("state_since"),
    info=_reference,
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    _moment("created_at"),
    info=_reference,
)

# Revisions that a version must know to run on this schema: see `migrate`.
needed_revisions = Table(
    "needed_revisions",
    metadata,
    Column("revision", Text, primary_key=True),
    info=_reference,
)

# UNLOGGED: a crash forgives failed logins, and counting them must not cost a disk flush.
login_failures = Table(
    "login_failures",
    metadata,
    Column("key", Text, primary_key=True),  # "account:<address>", "net:<prefix>" or "known:<address> <prefix>"
    Column("failures", Integer, nullable=False),
    _moment("last_at"),
    prefixes=["UNLOGGED"],
    info={"distribution": "key"},
)

# UNLOGGED, for the same reasons: a crash forgives what was sent, and no message waits for the disk to be counted.
sent_counts = Table(
    "sent_counts",
    metadata,
    _account(),
    _moment("hour_at"),  # when the hour began: with its first message
    _number("hour"),  # recipients accepted in it
    _number("tried"),  # recipients offered in it, those over the limit too
    _moment("day_at"),
    _number("day"),
    Column("fits", Boolean, nullable=False, server_default=text("true")),  # the last message was within the limits
    _moment("bad_at"),
    _number("bad"),  # messages found to be spam or to carry a virus in the hour that began at bad_at
    prefixes=["UNLOGGED"],
    info=_by_account,
)

# UNLOGGED: who is forgotten in a crash is only put off once more.
greylist = Table(
    "greylist",
    metadata,
    Column("key", LargeBinary, primary_key=True),  # SHA-256 of network, sender, recipient
    Column("passed", Boolean, nullable=False, server_default=text("false")),
    _moment("first_at"),
    _moment("last_at"),
    prefixes=["UNLOGGED"],
    info={"distribution": "key"},
)

# ---- the mailbox -----------------------------------------------------------------------------------------------

account_seq = Table(
    "account_seq",
    metadata,
    _account(),
    *(_number(name) for name in ("last_cn", "last_objid")),
    # The largest cn at which an object of that type changed: JMAP's state per type.
    *(_number(f"cn_{name}") for name in ("email", "mailbox", "thread", "event", "contact", "other")),
    _number("used_octets"),
    _number("used_items"),
    _number("forgotten_cn"),  # tombstones up to here may be gone: see `retention`
    postgresql_with={"fillfactor": "50"},  # room for HOT updates: this row changes with every write
    info=_by_account,
)

folders = Table(
    "folders",
    metadata,
    _account(),
    Column("fid", BigInteger, primary_key=True, autoincrement=False),
    _number("parent_fid"),  # 0: a top-level folder
    Column("name", Text, nullable=False),  # one level, not a path
    Column("kind", Text, nullable=False, server_default="mail"),  # mail|calendar|contacts|tasks|notes
    Column("role", Text),  # inbox|drafts|sent|junk|trash|archive
    Column("is_ipm", Boolean, nullable=False, server_default=text("true")),  # false: hidden from IMAP, JMAP, DAV, EAS
    Column("selectable", Boolean, nullable=False, server_default=text("true")),
    Column("subscribed", Boolean, nullable=False, server_default=text("false")),
    _number("uidvalidity", None),
    _number("uidnext", 1),
    _number("recent_uid", 1),  # uids from here on no session has been told of: IMAP's \Recent
    _number("created_cn", None),
    _number("cn", None),  # the folder's own properties
    _number("content_cn"),  # the largest cn inside: HIGHESTMODSEQ, sync tokens
    _number("total"),
    _number("unseen"),
    _number("octets"),
    _number("deleted_total"),
    _moment("created_at"),
    _moment("modified_at"),
    _moment("content_at"),
    UniqueConstraint("account_id", "parent_fid", "name"),
    Index("folders_role_key", "account_id", "role", unique=True, postgresql_where=text("role IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
    info=_by_account,
)

objects = Table(
    "objects",
    metadata,
    _account(),
    Column("object_id", BigInteger, primary_key=True, autoincrement=False),
    _number("created_cn", None),
    _number("thread_id", None),
    Column("blob_id", LargeBinary, nullable=False, index=True),
    Column("prefix", LargeBinary, nullable=False),  # trace headers that Posta put in front of the blob's octets
    _number("size", None),  # octets of prefix + blob
    Column("header_length", Integer, nullable=False),
    Column("envelope", LargeBinary, nullable=False),  # IMAP wire text
    Column("bodystructure", LargeBinary, nullable=False),  # IMAP wire text
    Column("parts", LargeBinary, nullable=False),  # section path -> offsets, as core/mime encodes it
    Column("head", LargeBinary),  # the header lines clients list messages by; NULL: too large to prepare
    Column("subject", Text, nullable=False),
    Column("base_subject", Text, nullable=False),
    Column("from_text", Text, nullable=False),  # decoded and casefolded, as the three below: SEARCH FROM, TO ...
    Column("to_text", Text, nullable=False),
    Column("cc_text", Text, nullable=False),
    Column("bcc_text", Text, nullable=False),
    Column("preview", Text, nullable=False),
    Column("sent_at", DateTime(timezone=True)),
    Column("message_id", Text),
    Column("refs", ARRAY(Text), nullable=False),  # References, else In-Reply-To; ids without angle brackets
    Column("has_attachment", Boolean, nullable=False),
    Column("search_text", Text, nullable=False),
    Index("objects_message_id_idx", "account_id", "message_id", postgresql_where=text("message_id IS NOT NULL")),
    info=_by_account,
)

items = Table(
    "items",
    metadata,
    _account(),
    Column("fid", BigInteger, primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    _number("mid", None),
    _number("object_id", None),
    _number("created_cn", None),
    _number("cn", None),
    Column("read_cn", BigInteger),
    _number("modseq", None),
    _number("size", None),
    Column("internal_date", DateTime(timezone=True), nullable=False),
    _moment("created_at"),
    _moment("modified_at"),
    Column("kind", SmallInteger, nullable=False),  # see flags.Kind
    Column("flags", SmallInteger, nullable=False, server_default="0"),  # see flags.Flag; \Seen is is_read
    Column("is_read", Boolean, nullable=False, server_default=text("false")),
    Column("keywords", ARRAY(Text), nullable=False, server_default="{}"),
    Column("dav_name", Text),
    Column("ical_uid", Text),
    UniqueConstraint("account_id", "mid"),
    UniqueConstraint("account_id", "cn"),
    Index("items_modseq_idx", "account_id", "fid", "modseq"),
    Index("items_object_idx", "account_id", "object_id"),
    info=_by_account,
)

tombstones = Table(
    "tombstones",
    metadata,
    _account(),
    Column("cn", BigInteger, primary_key=True, autoincrement=False),
    _number("fid", None),
    Column("mid", BigInteger),
    Column("uid", BigInteger),
    Column("object_id", BigInteger),
    Column("kind", SmallInteger, nullable=False),
    Column("dav_name", Text),
    _number("created_cn", None),
    Column("moved_to_mid", BigInteger),
    Column("last_ref", Boolean, nullable=False),  # no other placement of the object was left: JMAP "destroyed"
    _moment("at"),
    Index("tombstones_fid_idx", "account_id", "fid", "cn"),
    Index("tombstones_at_idx", "at", postgresql_using="brin"),  # rows come in order of time
    info=_by_account,
)

deliveries = Table(
    "deliveries",
    metadata,
    _account(),
    Column("spool_id", Text(collation="C"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    _moment("at"),
    Index("deliveries_at_idx", "at", postgresql_using="brin"),  # rows come in order of time; swept by age
    info=_by_account,
)

# ---- the way in ------------------------------------------------------------------------------------------------

blobs = Table(
    "blobs",
    metadata,
    Column("blob_id", LargeBinary, primary_key=True),  # SHA-256 of the content
    _number("size", None),
    _moment("staged_at"),
    Column("content", LargeBinary, nullable=False),  # STORAGE EXTERNAL: slices are read without the rest
    info={"distribution": "blob_id"},
)

spool = Table(
    "spool",
    metadata,
    Column("spool_id", Text(collation="C"), primary_key=True),
    Column("blob_id", LargeBinary, nullable=False, index=True),
    Column("prefix", LargeBinary, nullable=False),
    _number("size", None),
    Column("sender", Text, nullable=False),  # empty: the null reverse-path
    Column("sender_account_id", BigInteger),
    Column("door", Text, nullable=False),  # submission | mx | posta (our own DSNs)
    Column("client", Text, nullable=False, server_default=""),
    Column("junk", Boolean, nullable=False, server_default=text("false")),
    Column("ret", Text),  # RFC 3461: FULL | HDRS
    Column("envid", Text),
    Column("smtputf8", Boolean, nullable=False, server_default=text("false")),
    Column("traceparent", Text, nullable=False, server_default=""),
    Column("requiretls", Boolean, nullable=False, server_default=text("false")),  # RFC 8689
    _moment("received_at"),
    info={"distribution": "spool_id"},
)

_remote = "account_id IS NULL AND NOT held"

spool_recipients = Table(
    "spool_recipients",
    metadata,
    Column("spool_id", Text(collation="C"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("account_id", BigInteger),  # set: deliver here; NULL: relay to the address's domain
    Column("notify", Text),  # RFC 3461, comma-separated; NULL: not given
    Column("orcpt", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _moment("due_at"),  # when somebody looks at it, unless it is done by then
    Column("last_reply", Text),
    Column("last_host", Text),
    Column("forwarded_by", Text),  # the domain of ours whose alias led elsewhere; NULL: the sender named the address
    # The rest is about recipients of other domains only.
    Column("domain", Text, Computed("CASE WHEN account_id IS NULL THEN split_part(address, '@', -1) END", True)),
    Column("held", Boolean, nullable=False, server_default=text("false")),  # an operator said: not before I say so
    Column("leased_by", Text),  # the relay pod that has it in hand; it renews due_at
    Column("doomed", Text),  # an operator said: give it up for this reason, and tell the sender
    _moment("notice_at"),  # not done by then, its sender is told; counts from the first attempt on
    # A finished recipient's row is deleted in the commit that finishes it, so rows here are work.
    Index("spool_recipients_due_at_idx", "due_at", postgresql_where=text("account_id IS NOT NULL")),
    Index("spool_recipients_fresh_idx", "domain", "due_at", postgresql_where=text(f"{_remote} AND attempts = 0")),
    Index("spool_recipients_retry_idx", "domain", "due_at", postgresql_where=text(f"{_remote} AND attempts > 0")),
    Index("spool_recipients_leased_idx", "spool_id", "n", postgresql_where=text("leased_by IS NOT NULL")),
    Index("spool_recipients_due_retry_idx", "due_at", "domain", postgresql_where=text(f"{_remote} AND attempts > 0")),
    info={"distribution": "spool_id"},
)

# ---- the way out -----------------------------------------------------------------------------------------------

relay_routes = Table(
    "relay_routes",
    metadata,
    Column("sender", Text, primary_key=True),  # an address, "@domain", or empty for everybody
    Column("recipient", Text, primary_key=True),  # a domain, ".domain" for those below it, or empty for all
    Column("host", Text, nullable=False),  # empty: by MX, as if there were no rule
    Column("port", Integer, nullable=False),
    Column("implicit_tls", Boolean, nullable=False),
    Column("username", Text, nullable=False),
    Column("password", Text, nullable=False),  # sealed, see core/seal.py; in the clear where it is older than that
    _moment("created_at"),
    info=_reference,
)

# ---- what is held for review -------------------------------------------------------------------------------------

quarantine = Table(
    "quarantine",
    metadata,
    Column("spool_id", Text(collation="C"), primary_key=True),
    Column("blob_id", LargeBinary, nullable=False, index=True),
    Column("prefix", LargeBinary, nullable=False),  # as the spool's
    Column("headers", LargeBinary, nullable=False),  # the verdict's, which stand in front of the prefix
    _number("size", None),  # octets of headers + prefix + blob
    Column("sender", Text, nullable=False),
    Column("sender_account_id", BigInteger),
    Column("door", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("ret", Text),
    Column("envid", Text),
    Column("smtputf8", Boolean, nullable=False),
    Column("requiretls", Boolean, nullable=False),
    Column("traceparent", Text, nullable=False),
    Column("accepted", Boolean, nullable=False),  # the sender heard 250, so it must hear of the end
    Column("notice_due", Boolean, nullable=False),  # and is to hear now that it is held
    Column("kind", Text, nullable=False),  # virus | spam | policy: what it is held for
    Column("reason", Text, nullable=False),  # in words
    Column("score", Double, nullable=False),
    Column("findings", JSONB, nullable=False),
    Column("from_text", Text, nullable=False),  # of the header, for people
    Column("subject", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # signs the links of its recipients
    _moment("received_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("quarantine_expires_at_idx", "expires_at"),
    Index("quarantine_notice_idx", "spool_id", postgresql_where=text("notice_due")),
    info={"distribution": "spool_id"},
)

quarantine_recipients = Table(
    "quarantine_recipients",
    metadata,
    Column("spool_id", Text(collation="C"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("account_id", BigInteger),
    Column("notify", Text),
    Column("orcpt", Text),
    Column("forwarded_by", Text),
    Column("state", Text, nullable=False, server_default="held"),  # held | released | deleted | expired
    Column("told_at", DateTime(timezone=True)),  # when a digest named it
    Column("settled_at", DateTime(timezone=True)),  # when it left the state held
    Column("owed", Boolean, nullable=False),  # the sender must be told unless it is released
    Index("quarantine_recipients_account_idx", "account_id", postgresql_where=text("account_id IS NOT NULL")),
    Index("quarantine_recipients_owed_idx", "spool_id", postgresql_where=text("owed")),
    info={"distribution": "spool_id"},
)

# ---- what went on with other domains -----------------------------------------------------------------------------

# How TLS with other domains went, one row a day for each of its results: what RFC 8460 reports are made of.
tls_results = Table(
    "tls_results",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("policy", Text, primary_key=True),  # tlsa | sts | no-policy-found
    Column("host", Text, primary_key=True),  # empty: no host, the policy itself could not be had
    Column("result", Text, primary_key=True),  # successful, or the result types of RFC 8460 4.3
    _number("sessions"),
    info={"distribution": "domain"},
)

# Days of a domain that are done with: reported on by `spool_id`, or not asked about.
tls_reports = Table(
    "tls_reports",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("spool_id", Text),
    info={"distribution": "domain"},
)

"""The leases of the way out, found without reading the queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_leases"
down_revision = "2026_11_25_the_queue"


def upgrade() -> None:
    op.create_index(
        "spool_recipients_leased_idx",
        "spool_recipients",
        ["spool_id", "n"],
        postgresql_where=sa.text("leased_by IS NOT NULL"),
    )

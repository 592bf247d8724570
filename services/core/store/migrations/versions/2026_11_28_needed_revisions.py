"""What a version must know to run: noted by the revisions that take something away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_needed_revisions"
down_revision = "2026_11_28_admin_tokens"


def upgrade() -> None:
    op.create_table(
        "needed_revisions",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="needed_revisions_pkey"),
    )

"""The text to search is kept in a form that costs no time: pglz took a quarter of the delivery of a 50 KiB message."""

from __future__ import annotations

from alembic import op

revision = "2026_11_25_search_text"
down_revision = "2026_11_25_retention"


def upgrade() -> None:
    # lz4 is as good as free; a Postgres built without it keeps the text as it is.
    op.execute("""
    DO $$ BEGIN
      ALTER TABLE objects ALTER COLUMN search_text SET COMPRESSION lz4;
    EXCEPTION WHEN feature_not_supported THEN
      ALTER TABLE objects ALTER COLUMN search_text SET STORAGE EXTERNAL;
    END $$
    """)

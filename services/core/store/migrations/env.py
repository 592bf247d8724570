"""Alembic's entry: run by `services.core.store.migrate`, which hands over the connection."""

from __future__ import annotations

from alembic import context

from services.core.store.tables import metadata

if context.is_offline_mode():
    context.configure(url="postgresql://", target_metadata=metadata, literal_binds=True)
else:
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        compare_server_default=False,
        transaction_per_migration=True,
    )
with context.begin_transaction():
    context.run_migrations()

"""Run migrations on the connection that `tuner.store.schema` hands over."""

from alembic import context

given = context.config.attributes

context.configure(
    connection=given["connection"],
    version_table=given["version_table"],
    version_table_schema=given["version_table_schema"],
)
with context.begin_transaction():
    context.run_migrations()

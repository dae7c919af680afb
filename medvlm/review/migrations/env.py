"""What Alembic runs to migrate: the connection is `migrate`'s, and so is its transaction."""

from alembic import context

from medvlm.review.migrations import VERSION_TABLE
from medvlm.review.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

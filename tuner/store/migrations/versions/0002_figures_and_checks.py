"""Figures for unequal classes, the time of validation, and the findings of `tuner check`."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table; older trials have no values in them."""
    for name in ("val_sensitivity", "val_specificity", "val_seconds"):
        column: sa.Column[float] = sa.Column(
            name, sa.Double(), server_default=sa.text("'NaN'"), nullable=False
        )
        op.add_column("epoch", column, schema="tuner")
    for moment in ("best", "last"):
        for split in ("val", "test"):
            for figure in ("auc", "balanced_acc", "sensitivity", "specificity"):
                unknown: sa.Column[float] = sa.Column(
                    f"{moment}_{split}_{figure}", sa.Double(), nullable=True
                )
                op.add_column("outcome", unknown, schema="tuner")
    op.create_table(
        "check",
        sa.Column("check_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column(
            "made",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["study_id"], ["tuner.study.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("check_id"),
        schema="tuner",
    )
    op.create_index("check_by_study", "check", ["study_id", "check_id"], schema="tuner")

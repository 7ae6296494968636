"""SQLAlchemy on SQLite with engine and pool echo, mappers and unit of work in DEBUG; migrations by Alembic."""

# needs: sqlalchemy alembic
# mypy: ignore-errors
import contextlib
import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import orm
from sqlalchemy.pool import QueuePool


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("author.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


ENV = """
from alembic import context
import sqlalchemy as sa
target = sa.MetaData()
sa.Table("made", target, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer, index=True))
engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=target)
    with context.begin_transaction():
        context.run_migrations()
"""


def migrate() -> None:
    folder = Path("migrations")
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    (folder / "script.py.mako").write_text(
        "revision = ${repr(up_revision)}\ndown_revision = ${repr(down_revision)}\n"
        "from alembic import op\nimport sqlalchemy as sa\n"
        "def upgrade():\n    ${upgrades or 'pass'}\ndef downgrade():\n    ${downgrades or 'pass'}\n"
    )
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", "sqlite:///migrated.db")
    command.revision(config, "first", autogenerate=True)
    command.upgrade(config, "head")
    command.revision(config, "second", autogenerate=True)
    command.upgrade(config, "head")
    command.downgrade(config, "base")


def main() -> None:
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    engine = sa.create_engine("sqlite:///shop.db", poolclass=QueuePool, pool_size=2, echo="debug", echo_pool="debug")
    Base.metadata.create_all(engine)
    for number in range(25):
        with orm.Session(engine) as session:
            author = Author(name=f"author {number}", books=[Book(title=f"book {n}") for n in range(number % 4)])
            session.add(author)
            session.commit()
            author.name = f"renamed {number}" if number else "twin"
            session.flush()
            if number % 5 == 0:
                session.delete(author)
            session.commit()
        with orm.Session(engine) as session:
            session.scalars(sa.select(Author).options(orm.selectinload(Author.books))).all()
            session.scalars(sa.select(Book).options(orm.joinedload(Book.author)).limit(number)).all()
            for book in session.scalars(sa.select(Book).limit(3)):
                str(book.author.name)
        with orm.Session(engine) as session, contextlib.suppress(sa.exc.IntegrityError):
            session.add_all([Author(name="same"), Author(name="same")])
            session.commit()
    with engine.connect() as connection:
        connection.invalidate()
    with contextlib.suppress(sa.exc.OperationalError), engine.begin() as connection:
        connection.execute(sa.text("select * from nowhere"))
    engine.dispose()
    migrate()


if __name__ == "__main__":
    main()

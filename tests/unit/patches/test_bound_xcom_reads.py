"""An API server loads no more XCom values at once than its memory can hold."""

from __future__ import annotations

import pytest
import sqlalchemy
from fastapi import HTTPException
from sqlalchemy import JSON, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.unit.patches.loading import applied

VALUE = "x" * 300_000


class Base(DeclarativeBase): ...


class XComModel(Base):
    __tablename__ = "xcom"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[object] = mapped_column(JSON, nullable=True)


class Other(Base):
    __tablename__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[object] = mapped_column(JSON, nullable=True)


@pytest.fixture
def session():
    engine = sqlalchemy.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with applied("bound_xcom_reads"), Session(engine) as session:
        session.add_all([kind(id=number, value=VALUE) for number in range(10) for kind in (XComModel, Other)])
        session.commit()
        yield session


def statements(session) -> list[str]:
    sent: list[str] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda *call: sent.append(call[2]))
    return sent


def test_values_within_the_limit_are_read(session):
    rows = session.execute(select(XComModel.value).limit(3).order_by(XComModel.id)).all()
    assert [row.value for row in rows] == [VALUE] * 3
    assert session.execute(select(XComModel.value).limit(0)).all() == []


def test_values_over_the_limit_are_refused(session):
    with pytest.raises(HTTPException) as refused:
        session.execute(select(XComModel.value)).all()
    assert refused.value.status_code == 413
    assert len(session.execute(select(Other.value)).all()) == 10


def test_list_does_not_load_the_values(session):
    sent = statements(session)
    listed = session.scalars(select(XComModel).limit(5)).all()
    assert "value" not in sent[0]
    assert listed[0].value == VALUE


def test_single_xcom_is_loaded_with_its_value(session):
    sent = statements(session)
    assert session.scalars(select(XComModel).limit(1)).first().value == VALUE
    assert len(sent) == 1


def test_upstream_loads_all_values_of_slice_and_list():
    """If this fails, upstream may limit them: check whether bound_xcom_reads can be deleted."""
    import inspect

    from airflow.api_fastapi.core_api.routes.public import xcom
    from airflow.api_fastapi.execution_api.routes import xcoms

    assert "with_only_columns(XComModel.value)).all()" in inspect.getsource(xcoms.get_mapped_xcom_by_slice)
    assert "query = select(XComModel)\n" in inspect.getsource(xcom.get_xcom_entries)

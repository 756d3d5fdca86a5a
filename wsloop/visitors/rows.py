"""Reads rows of a model by the values of a field, with SQL that Django has made once for each number of values.

To make the SQL of a query takes Django several times as long as a database takes to answer it. This module must not
know what the rows are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import connections
from django.db.models import Manager, QuerySet

_made: dict[tuple[Any, str, str, int], str] = {}


def is_plain(manager: Any) -> bool:
    """Return whether the rows of a manager are all rows of one table, as far as the site has not said otherwise."""
    return (
        type(manager).get_queryset is Manager.get_queryset
        and manager._queryset_class is QuerySet
        and not manager.model._meta.parents
    )


def read(manager: Any, name: str, field: Any, values: Collection[Any], using: str, **annotations: Any) -> list[Any]:
    """Return the rows whose field has one of some values. Queries the database.

    Args:
        manager: a plain one, see :func:`is_plain`.
        name: of the field, as in ``filter()``.
        field: that prepares values for the database.
        values: different ones, up to some hundred: SQL is kept for each number of them.
        using: alias of the database.
        annotations: as of ``annotate()``, the same with each call for this model and name.

    Raises:
        django.db.Error: if the database does not answer.
    """
    if not values:
        return []
    connection = connections[using]
    parameters = [field.get_db_prep_value(each, connection) for each in values]
    place = manager.model, name, using, len(parameters)
    rows = manager.using(using)
    if place not in _made:
        query = rows.filter(**{f"{name}__in": values}).annotate(**annotations).query
        sql, expected = query.get_compiler(using).as_sql()
        if list(expected) != parameters:  # by another kind of database
            return list(rows.filter(**{f"{name}__in": values}).annotate(**annotations))
        _made[place] = sql
    return list(rows.raw(_made[place], parameters))


__all__ = ["is_plain", "read"]

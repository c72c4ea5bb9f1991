"""What a cell takes from the notebook."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sabot_magics.namespace import bind_parameters, frame_columns, is_frame
from sabot_sql import ConfigError

pytestmark = pytest.mark.fast

NAMESPACE: dict[str, Any] = {
    "n": 3,
    "text": "it's",
    "day": dt.date(2024, 1, 2),
    "price": Decimal("1.5"),
    "nothing": None,
    "np_int": np.int64(7),
    "np_day": np.datetime64("2024-01-02"),
    "stamp": pd.Timestamp("2024-01-02"),
    "many": [1, 2],
    "values": {"a": 1, "n": 4},
    "frame": pd.DataFrame({"a": [1]}),
}


def bind(sql: str, *given: str) -> Any:
    return bind_parameters(sql, given, NAMESPACE, lambda text: eval(text, {}, NAMESPACE))  # noqa: S307


@pytest.mark.parametrize(
    ("sql", "given", "bound"),
    [
        ("select 1", (), None),
        ("select $n, $text, $nothing", (), {"n": 3, "text": "it's", "nothing": None}),
        ("select $day, $price", (), {"day": dt.date(2024, 1, 2), "price": Decimal("1.5")}),
        ("select $np_int, $np_day", (), {"np_int": 7, "np_day": dt.date(2024, 1, 2)}),
        ("select $n", ("n=10",), {"n": 10}),
        ("select $a, $n", ("values",), {"a": 1, "n": 4}),
        ("select $a, $n", ("values", "n=5"), {"a": 1, "n": 5}),
        ("select $x", ("x=n + 1",), {"x": 4}),
        ("select $x", ("x='=='",), {"x": "=="}),
        ("select ?, ?", ("many",), [1, 2]),
        ("select ?, ?", ("[n, 4]",), [3, 4]),
    ],
)
def test_bind(sql: str, given: tuple[str, ...], bound: Any) -> None:
    assert bind(sql, *given) == bound


def test_scalars_of_numpy_become_values_of_python() -> None:
    assert type(bind("select $np_int")["np_int"]) is int
    assert bind("select $stamp")["stamp"] == dt.datetime(2024, 1, 2)


@pytest.mark.parametrize(
    ("sql", "given", "message"),
    [
        (
            "select $missing",
            (),
            r"\$missing has no value\n  set missing in the notebook, or give --params missing=VALUE",
        ),
        ("select $many", (), r"\$many is a list; only single values .*\n  to bind it all the same: --params many=many"),
        ("select $frame", (), r"\$frame is a DataFrame"),
        ("select 1", ("n",), r"--params n: a dict or a list is needed, not int\n  to bind one value: --params NAME=n"),
        ("select 1", ("many", "n=1"), "a list of values cannot be mixed"),
    ],
)
def test_what_cannot_be_bound(sql: str, given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bind(sql, *given)


def test_frames_and_their_columns() -> None:
    table = pa.table({"a": [1], "b": [2]})
    frames = [
        table,
        table.to_batches()[0],
        pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
        pd.DataFrame({"a": [1], "b": [2]}),
        pl.DataFrame({"a": [1], "b": [2]}),
        pl.LazyFrame({"a": [1], "b": [2]}),
    ]
    assert all(map(is_frame, frames))
    assert [frame_columns(frame) for frame in frames] == [["a", "b"]] * 5 + [[]]
    assert not any(map(is_frame, [pd.DataFrame, pa.Table, 1, "text", {"a": [1]}, [1], None]))

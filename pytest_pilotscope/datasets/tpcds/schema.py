"""The keys of TPC-DS (specification 3.2, clauses 2.3 and 2.4). Columns and types come from the generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

PRIMARY_KEYS: Mapping[str, Sequence[str]] = {
    "call_center": ("cc_call_center_sk",),
    "catalog_page": ("cp_catalog_page_sk",),
    "catalog_returns": ("cr_item_sk", "cr_order_number"),
    "catalog_sales": ("cs_item_sk", "cs_order_number"),
    "customer": ("c_customer_sk",),
    "customer_address": ("ca_address_sk",),
    "customer_demographics": ("cd_demo_sk",),
    "date_dim": ("d_date_sk",),
    "household_demographics": ("hd_demo_sk",),
    "income_band": ("ib_income_band_sk",),
    "inventory": ("inv_date_sk", "inv_item_sk", "inv_warehouse_sk"),
    "item": ("i_item_sk",),
    "promotion": ("p_promo_sk",),
    "reason": ("r_reason_sk",),
    "ship_mode": ("sm_ship_mode_sk",),
    "store": ("s_store_sk",),
    "store_returns": ("sr_item_sk", "sr_ticket_number"),
    "store_sales": ("ss_item_sk", "ss_ticket_number"),
    "time_dim": ("t_time_sk",),
    "warehouse": ("w_warehouse_sk",),
    "web_page": ("wp_web_page_sk",),
    "web_returns": ("wr_item_sk", "wr_order_number"),
    "web_sales": ("ws_item_sk", "ws_order_number"),
    "web_site": ("web_site_sk",),
}

DATES: Mapping[str, str] = {
    "catalog_returns": "cr_returned_date_sk",
    "catalog_sales": "cs_sold_date_sk",
    "inventory": "inv_date_sk",
    "store_returns": "sr_returned_date_sk",
    "store_sales": "ss_sold_date_sk",
    "web_returns": "wr_returned_date_sk",
    "web_sales": "ws_sold_date_sk",
}
"""Table -> the column that says when a row came: the number of a day."""

_REFERRED: Mapping[str, str] = {
    "date_sk": "date_dim",
    "time_sk": "time_dim",
    "item_sk": "item",
    "customer_sk": "customer",
    "cdemo_sk": "customer_demographics",
    "hdemo_sk": "household_demographics",
    "addr_sk": "customer_address",
    "store_sk": "store",
    "promo_sk": "promotion",
    "reason_sk": "reason",
    "warehouse_sk": "warehouse",
    "ship_mode_sk": "ship_mode",
    "web_page_sk": "web_page",
    "web_site_sk": "web_site",
    "call_center_sk": "call_center",
    "catalog_page_sk": "catalog_page",
    "income_band_sk": "income_band",
}
"""The end of a column's name -> the table whose primary key it refers to."""


def referred(table: str, column: str) -> str | None:
    """Return the table that a column refers to, None for any other column."""
    if PRIMARY_KEYS[table] == (column,):
        return None
    return next((parent for end, parent in _REFERRED.items() if column.endswith(f"_{end}")), None)


def constraints(columns: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the statements that add primary keys, and an index on every other column that refers to a table."""
    for table, key in PRIMARY_KEYS.items():
        yield f"ALTER TABLE {table} ADD PRIMARY KEY ({', '.join(key)})"
    for table, names in columns.items():
        for name in names:
            if referred(table, name) is not None and name != PRIMARY_KEYS[table][0]:
                yield f"CREATE INDEX ON {table} ({name})"

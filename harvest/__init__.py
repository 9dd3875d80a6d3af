"""How two inventories agree: both ends of the metadata exchange. Rows only, never bytes."""

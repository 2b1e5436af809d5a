"""What commands print: columns, tables, rates, and bars of progress."""

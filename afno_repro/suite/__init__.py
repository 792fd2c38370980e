"""From a spec to a table: spec, plan, store, execute, table, render, compare."""

"""What a run measured: its metrics, the JSON document, and the table made from it."""

"""From a query to product ids: query → encode → nearest → group → rank. Start reading in `finder`."""

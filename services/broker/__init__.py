"""The broker service: one connection to a broker per session, its orders, and what becomes of them."""

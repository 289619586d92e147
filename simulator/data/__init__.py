"""Recorded prices that the market replays; see PROVENANCE.md beside this file."""
